# Functions that deploy/quickstart.sh and test/run.sh share: what a bare Debian 12 lacks is installed here.
# Sourced by POSIX sh with ROOT set to the repository.

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

say() { printf '==> %s\n' "$*"; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Runs the calling script again as root when it isn't: containerd, QEMU's run directory and mounts need it.
become_root() {
  [ "$(id -u)" = 0 ] && return 0
  command -v sudo >/dev/null 2>&1 || die "run this as root, or install sudo"
  say "going on as root (sudo)"
  exec sudo -E sh "$0" "$@"
}

# What must be there, and the Debian package that has it.
# A command found by another way than the package counts: containerd may come from elsewhere.
runtime_needs() {
  cat <<'NEEDS'
containerd containerd
ctr containerd
runc runc
crun crun
qemu-system-x86_64 qemu-system-x86
qemu-img qemu-utils
genisoimage genisoimage
mke2fs e2fsprogs
ip iproute2
flock util-linux
nsenter util-linux
unshare util-linux
setsid util-linux
mount mount
cpio cpio
zstd zstd
xz xz-utils
depmod kmod
busybox busybox-static
update-ca-certificates ca-certificates
NEEDS
}
# wireguard-go: for hosts whose kernel has no WireGuard, as those of the tests may be; a node that has it needs none.
test_needs() {
  cat <<'NEEDS'
/usr/lib/cni/bridge containernetworking-plugins
/usr/share/OVMF/OVMF_CODE_4M.fd ovmf
mcopy mtools
sfdisk fdisk
setfattr attr
git git
docker-registry docker-registry
wireguard-go wireguard-go
tcpdump tcpdump
openssl openssl
script bsdutils
pgrep procps
redis-server redis-server
redis-server redis-server
NEEDS
}

# Reads "command package" lines, prints the packages whose command is not there.
missing_packages() {
  while read -r needed package; do
    case $needed in
      /*) [ -e "$needed" ] || echo "$package" ;;
      busybox) static_busybox || echo "$package" ;;
      *) command -v "$needed" >/dev/null 2>&1 || echo "$package" ;;
    esac
  done | sort -u
}

# Images and the initrd are made from the static one; the plain package has the same path.
static_busybox() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' busybox-static 2>/dev/null)" = installed ]
}

node_major() { node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0; }

# apt_install PACKAGE...: installs without starting any service, and without asking.
apt_install() {
  command -v apt-get >/dev/null 2>&1 || die "apt-get is not here: install by hand: $*"
  say "installing with apt: $*"
  _policy=/usr/sbin/policy-rc.d
  _own_policy=
  if [ ! -e $_policy ]; then
    # Debian starts a service as soon as its package is there; nothing may be left running.
    _own_policy=yes
    printf '#!/bin/sh\nexit 101\n' >$_policy
    chmod 755 $_policy
  fi
  _failed=
  {
    DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >"$_log" 2>&1
  } || _failed=yes
  [ -z "$_own_policy" ] || rm -f $_policy
  if [ -n "$_failed" ]; then
    cat "$_log" >&2
    die "apt could not install: $*"
  fi
}

# install_packages [tests]: says what is missing, installs that and nothing else.
install_packages() {
  _log=$(mktemp)
  _wanted=$({
    runtime_needs
    [ "${1:-}" != tests ] || test_needs
  } | missing_packages | tr '\n' ' ')
  if [ ! -x "$ROOT/node_modules/.bin/node" ]; then
    # Any Node from 18 on can bootstrap the install; the project then runs on its own, pinned one.
    if [ "$(node_major)" -lt 18 ] || ! command -v npm >/dev/null 2>&1; then
      [ "$(node_major)" -ge 18 ] || _wanted="$_wanted nodejs"
      _wanted="$_wanted npm"
    fi
  fi
  # shellcheck disable=SC2086 # a list of package names
  [ -z "${_wanted# }" ] || apt_install $_wanted
  rm -f "$_log"
}

# Runs a command as the owner of the repository, so that a sudo run leaves no root-owned files in it.
as_owner() {
  _owner=$(stat -c %U "$ROOT")
  if [ "$(id -u)" = 0 ] && [ "$_owner" != root ] && [ "$_owner" != UNKNOWN ]; then
    runuser -u "$_owner" -- env HOME="$(getent passwd "$_owner" | cut -d: -f6)" "$@"
  else
    "$@"
  fi
}

# Installs node_modules from the committed lock, once per lock, and puts the pinned Node first on PATH.
install_node_modules() {
  _stamp=$ROOT/node_modules/.kata-remote-lock
  _sum=$(cat "$ROOT/package.json" "$ROOT/package-lock.json" | sha256sum)
  if [ "$(cat "$_stamp" 2>/dev/null)" != "$_sum" ]; then
    say "installing npm packages (Node 24 is one of them)"
    _lock=$(mktemp)
    cp "$ROOT/package-lock.json" "$_lock"
    # Not `npm ci`: a registry without some other platform's optional packages makes it refuse a good lock.
    (cd "$ROOT" && as_owner npm install --ignore-scripts --no-audit --no-fund --loglevel=error) || {
      cp "$_lock" "$ROOT/package-lock.json"
      die "npm install failed"
    }
    cmp -s "$_lock" "$ROOT/package-lock.json" || cp "$_lock" "$ROOT/package-lock.json"
    rm -f "$_lock"
    # Some versions of npm (9, Debian's) unpack the package but leave its link out.
    for _node in "$ROOT"/node_modules/node-linux-*/bin/node; do
      if [ -x "$_node" ] && [ ! -e "$ROOT/node_modules/.bin/node" ]; then
        as_owner ln -s "../${_node#"$ROOT/node_modules/"}" "$ROOT/node_modules/.bin/node"
      fi
    done
    printf '%s\n' "$_sum" >"$_stamp"
  fi
  PATH=$ROOT/node_modules/.bin:$PATH
  export PATH
  case $(node --version 2>/dev/null) in
    v24.*) ;;
    *) die "node_modules/.bin/node is not Node 24 (there is none for $(uname -m)?): $(node --version 2>&1)" ;;
  esac
}

build() {
  say "building dist/"
  (cd "$ROOT" && as_owner node deploy/build.ts)
}

# Where downloads and built images are kept; nothing else is left on disk.
cache_dir() { echo "${KATA_REMOTE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/kata-remote}"; }
