#!/bin/sh
# From nothing to a container in a pod VM, through containerd, on this machine:
#   sh deploy/quickstart.sh [--keep]
# Installs what is missing, builds everything, runs one container, says what it saw. Whatever it started is ended again;
# with --keep containerd and kata-remote stay, and it prints how to use and how to stop them.
set -eu
ROOT=$(cd "$(dirname -- "$0")/.." && pwd)
. "$ROOT/deploy/setup.sh"

keep=
for argument in "$@"; do
  case $argument in
    --keep) keep=yes ;;
    -h | --help)
      sed -n '2,5s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    *) die "unknown argument $argument (--keep is known)" ;;
  esac
done
become_root "$@"

install_packages
install_node_modules
build
PATH=$ROOT/dist/bin:$PATH
export PATH

CACHE=$(cache_dir)
say "pod VM image (kept in $CACHE; takes a while only when it is not there yet)"
kata-remote image build --out "$CACHE/podvm" --cache "$CACHE/podvm-build"
say "busybox image, from Debian's package"
busybox=$(KATA_REMOTE_CACHE=$CACHE node "$ROOT/deploy/ociimages/main.ts" busybox)
image=${busybox%% *}
archive=${busybox#* }

# Short path: sockets below it must fit into 107 bytes.
work=$(mktemp -d "${TMPDIR:-/tmp}/kr.XXXXXX")
KATA_REMOTE_RUN_DIR=$work/run
export KATA_REMOTE_RUN_DIR
mkdir -m 700 "$work/run" "$work/state" "$work/containerd"
up='' ctrd=''

# Ids of the processes that were started here: only they have the work directory in their command line.
own_processes() {
  for _proc in /proc/[0-9]*; do
    if grep -qF "$work/" "$_proc/cmdline" 2>/dev/null; then echo "${_proc#/proc/}"; fi
  done
}

stop_all() {
  for _pid in $up $ctrd; do kill "$_pid" 2>/dev/null || true; done
  for _pid in $up $ctrd; do
    _n=0
    while kill -0 "$_pid" 2>/dev/null && [ $_n -lt 200 ]; do
      sleep 0.1
      _n=$((_n + 1))
    done
  done
  for _pid in $(own_processes); do kill -9 "$_pid" 2>/dev/null || true; done
  sed -n "s|^[^ ]* \($work/[^ ]*\) .*|\1|p" /proc/mounts | sort -r | while read -r _mount; do umount -l "$_mount" || true; done
}
cleanup() {
  code=$?
  trap - EXIT INT TERM HUP
  if [ $code -ne 0 ]; then
    for _log in "$work/kata-remote.log" "$work/containerd.log"; do
      [ ! -s "$_log" ] || { echo "--- end of $_log" && tail -n 30 "$_log"; } >&2
    done
  fi
  if [ -n "$keep" ] && [ $code -eq 0 ]; then return; fi
  stop_all
  rm -rf "$work"
  exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

wait_for() { # wait_for SECONDS WHAT COMMAND...: gives up early when a process started here has ended
  _left=$(($1 * 10))
  _what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    _left=$((_left - 1))
    [ $_left -gt 0 ] || die "waited for $_what in vain"
    for _pid in $up $ctrd; do kill -0 "$_pid" 2>/dev/null || die "waited for $_what, but it has ended"; done
    sleep 0.1
  done
}

node "$ROOT/deploy/quickstart/write-config.ts" "$work" "$CACHE"
say "starting kata-remote up (node daemon and adaptor, provider local)"
kata-remote up --node-config "$work/node.toml" --adaptor-config "$work/adaptor.toml" >"$work/kata-remote.log" 2>&1 &
up=$!
wait_for 30 "kata-remote to be ready" test -e "$work/run/node.ready"

address=/run/containerd/containerd.sock
runtime=io.containerd.kata-remote.v2
if ctr --address $address --connect-timeout 2s version >/dev/null 2>&1; then
  say "using the containerd that runs here ($address)"
  # Its PATH and environment are its own: the launcher is named by path, and told the run directory by a wrapper.
  runtime=$work/bin/containerd-shim-kata-remote-v2
  mkdir "$work/bin"
  printf '#!/bin/sh\nKATA_REMOTE_RUN_DIR=%s exec %s "$@"\n' "$KATA_REMOTE_RUN_DIR" "$ROOT/dist/bin/${runtime##*/}" >"$runtime"
  chmod 755 "$runtime"
else
  say "no containerd runs here: starting one for this"
  address=$work/containerd/containerd.sock
  cat >"$work/containerd.toml" <<'CONFIG'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
CONFIG
  containerd --config "$work/containerd.toml" --address "$address" --root "$work/containerd/root" --state "$work/containerd/state" \
    >"$work/containerd.log" 2>&1 &
  ctrd=$!
  wait_for 30 "containerd to answer" ctr --address "$address" version
fi

namespace=kata-remote-quickstart
in_containerd() { ctr --address "$address" --namespace $namespace "$@"; }
forget() { # what containerd would keep; a namespace can be removed once its content is collected
  in_containerd image rm --sync "$image" >/dev/null 2>&1 || true
  _n=0
  until [ -n "$ctrd" ] || ctr --address "$address" namespace rm $namespace >/dev/null 2>&1 || [ $_n -ge 20 ]; do
    _n=$((_n + 1))
    sleep 0.2
  done
}
in_containerd image import "$archive" >/dev/null

say "ctr run --rm --runtime $runtime $image"
# It stays for a moment at the end, so that it can be looked at while it runs.
# shellcheck disable=SC2016 # the guest's shell expands it
script='echo "hello from a pod VM"; echo "kernel  $(uname -sr)"; echo "boot id $(cat /proc/sys/kernel/random/boot_id)"; sleep 2'
id=quickstart
in_containerd run --rm --runtime "$runtime" "$image" $id sh -c "$script" >"$work/stdout" 2>"$work/stderr" &
run=$!
while kill -0 $run 2>/dev/null; do
  kata-remote ps --json >"$work/ps.new" 2>/dev/null && grep -q "\"$id\"" "$work/ps.new" && mv "$work/ps.new" "$work/ps.json"
  sleep 0.2
done
status=0
wait $run || status=$?
cat "$work/stderr" >&2
sed 's/^/    /' "$work/stdout"
[ $status -eq 0 ] || { forget; die "the container ended with $status"; }

cat <<SAW
this machine:
    kernel  $(uname -sr)
    boot id $(cat /proc/sys/kernel/random/boot_id)
SAW
last=$(node "$ROOT/deploy/quickstart/report.ts" "$work/ps.json" $id)
printf '%s\n' "$last" | sed '$d'

if [ -z "$keep" ]; then
  forget
  vm_gone() {
    for _pid in $(own_processes); do
      case $(readlink "/proc/$_pid/exe" 2>/dev/null) in *qemu*) return 1 ;; esac
    done
  }
  wait_for 60 "the VM to be gone" vm_gone
  say "nothing is left running; left on disk: $CACHE, node_modules, dist"
else
  cat <<KEPT
==> kept running (pids: $up${ctrd:+ $ctrd}); to use and to stop them:
    export PATH=$ROOT/dist/bin:\$PATH KATA_REMOTE_RUN_DIR=$KATA_REMOTE_RUN_DIR
    ctr --address $address --namespace $namespace run --rm -t --runtime $runtime $image shell sh
    kata-remote ps
    kill $up${ctrd:+ $ctrd} && rm -rf $work
KEPT
fi
printf '%s\n' "$last" | tail -n 1
