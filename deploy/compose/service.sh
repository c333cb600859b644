#!/bin/sh
# What a service of docker-compose.yml runs:
#   service.sh redis|cloud|publish|adaptor-1|adaptor-2|node    the service itself
#   service.sh check SERVICE                                   whether it is ready (health check)
#   service.sh stop SERVICE                                    before it is ended: what it has started goes first
#   service.sh run COMMAND...                                  a container in a VM, from within service node
# In its image everything is where the defaults say; deploy/compose/up.ts names other places.
set -eu
HOME_DIR=${KR_HOME:-/opt/kata-remote}
STATE=${KR_STATE:-/var/lib/kata-remote-compose}
SHARED=${KR_SHARED:-/shared}
# The address that a service listens on.
LISTEN=${KR_LISTEN:-0.0.0.0}
PATH=$HOME_DIR/dist/bin:$PATH
NODE=$HOME_DIR/dist/lib/kata-remote/node
REGION=eu-west-1
JOIN=$SHARED/join.json
IMAGE=localhost/kata-remote/busybox:1
export PATH
mkdir -p "$STATE" "$SHARED"

die() {
  echo "service.sh: $*" >&2
  exit 1
}

# port_open HOST PORT
port_open() {
  "$NODE" -e 'require("node:net").connect(+process.argv[2], process.argv[1]).on("connect", () => process.exit(0)).on("error", () => process.exit(1)).setTimeout(2000, () => process.exit(1))' "$1" "$2"
}

adaptor_config() {
  cat <<END
stateDir = "$STATE"
cluster = "compose"
provider = "aws"
store = { kind = "redis", url = "$REDIS_URL" }
grpc = { socketPath = "$STATE/adaptor.sock", listen = { host = "$LISTEN", port = 8443, joinPort = 8444, serverNames = ["adaptor"] } }
rest = { socketPath = "$STATE/rest.sock" }

[providers.aws]
region = "$REGION"
endpoint = "$CLOUD_URL"
imageName = "kata-remote-compose*"
subnets = ["subnet-0a1b2c3d4e5f6000a", "subnet-0a1b2c3d4e5f6000b", "subnet-0a1b2c3d4e5f6000c"]
securityGroups = ["sg-0a1b2c3d4e5f60001"]
instanceTypes = ["m6a.*", "c6a.*"]
END
}

node_config() {
  cat <<END
runDir = "$STATE/run"
stateDir = "$STATE/node"

[remote]
joinFile = "$JOIN"

[podNetwork]
bypassConntrack = false
END
}

containerd_config() {
  cat <<END
version = 2
root = "$STATE/containerd/root"
state = "$STATE/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$STATE/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$STATE/containerd/opt"
END
}

ctr_() { ctr --address "$STATE/containerd.sock" "$@"; }

serve_adaptor() {
  # The second one has no CA of its own: adaptors of one store sign for each other.
  if [ "$1" != adaptor-1 ] && [ ! -e "$STATE/ca" ]; then cp -a "$SHARED/ca" "$STATE/ca"; fi
  adaptor_config >"$STATE/adaptor.toml"
  exec kata-remote adaptor --config "$STATE/adaptor.toml"
}

# Ready: it listens, and (the first one) the others have what they need of it.
check_adaptor() {
  [ -S "$STATE/adaptor.sock" ] || return 1
  port_open "${KR_LISTEN:-127.0.0.1}" 8443 || return 1
  [ "$1" = adaptor-1 ] || return 0
  [ -e "$SHARED/ca" ] || { cp -a "$STATE/ca" "$SHARED/ca.new" && mv "$SHARED/ca.new" "$SHARED/ca"; } || return 1
  [ -e "$JOIN" ] || kata-remote adaptor token --config "$STATE/adaptor.toml" --out "$JOIN" >/dev/null
}

serve_node() {
  mkdir -p "$STATE/run" "$STATE/node"
  chmod 700 "$STATE/run"
  node_config >"$STATE/node.toml"
  containerd_config >"$STATE/containerd.toml"
  export KATA_REMOTE_RUN_DIR="$STATE/run" KATA_REMOTE_NODE_CONFIG="$STATE/node.toml"
  exec containerd --config "$STATE/containerd.toml"
}

check_node() {
  ctr_ version >/dev/null 2>&1 || return 1
  ctr_ images ls -q | grep -qx "$IMAGE" || ctr_ images import "$HOME_DIR/busybox.tar" >/dev/null
}

case ${1:-} in
  redis) exec redis-server --bind "$LISTEN" --port 6379 --dir "$STATE" --save '' --appendonly yes --appendfsync always --protected-mode no ;;
  cloud) exec "$NODE" "$HOME_DIR/cloud/main.mjs" --host "$LISTEN" --port 4566 --folder "$STATE/machines" ;;
  publish)
    # The hash in its name makes another image of another disk; the same one is there already.
    exec kata-remote image publish aws --dir "$HOME_DIR/image" --name "kata-remote-compose-$(sha256sum <"$HOME_DIR/image/disks.json" | cut -c 1-12)" \
      --set "region=$REGION" --set "endpoint=$CLOUD_URL" --set pollMs=100
    ;;
  adaptor-1 | adaptor-2) serve_adaptor "$1" ;;
  node) serve_node ;;
  check)
    case ${2:-} in
      redis) [ "$(redis-cli -h "${KR_LISTEN:-127.0.0.1}" ping)" = PONG ] ;;
      cloud) port_open "${KR_LISTEN:-127.0.0.1}" 4566 ;;
      adaptor-1 | adaptor-2) check_adaptor "$2" ;;
      node) check_node ;;
      *) die "check knows redis, cloud, adaptor-1, adaptor-2 and node" ;;
    esac
    ;;
  stop)
    if [ "${2:-}" = node ]; then
      KATA_REMOTE_RUN_DIR="$STATE/run" KATA_REMOTE_NODE_CONFIG="$STATE/node.toml" kata-remote node --drain
    fi
    ;;
  run)
    shift
    ctr_ run --rm --runtime io.containerd.kata-remote.v2 "$IMAGE" "run-$$" "$@"
    ;;
  *) die "redis, cloud, publish, adaptor-1, adaptor-2, node, check, stop and run are known" ;;
esac
