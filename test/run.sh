#!/bin/sh
# Installs what the tests need, then runs all of them: lint, types, generated code, unit, conformance, integration,
# and end to end with real containerd and real VMs, on this host and behind the EC2 and ARM endpoints of test/clouds.
# Last line: "N passed, N failed". Non-zero when anything failed or nothing ran.
#   sh test/run.sh [--no-e2e]
set -eu
ROOT=$(cd "$(dirname -- "$0")/.." && pwd)
. "$ROOT/deploy/setup.sh"
e2e=yes
for argument in "$@"; do
  case $argument in
    --no-e2e) e2e='' ;;
    *) die "unknown argument $argument (--no-e2e is known)" ;;
  esac
done
become_root "$@"
cd "$ROOT"

install_packages tests
install_node_modules
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
passed=0 failed=0 skipped=0 broken=''

# check NAME COMMAND...: one test that is a program's exit code.
check() {
  _name=$1
  shift
  say "$_name"
  if "$@" >"$work/out" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1)) broken="$broken $_name;"
    cat "$work/out"
    echo "FAILED: $_name"
  fi
}

# program NAME COMMAND...: as check, and shows its last line, which has its numbers.
program() {
  check "$@"
  tail -n 1 "$work/out"
}

# suite NAME ARGUMENTS...: node's test runner, its counts taken from its own summary.
suite() {
  _name=$1
  shift
  say "$_name"
  _code=0
  # A file whose tests have ended ends, whatever a library still waits for.
  node --test --test-force-exit --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$work/tap" "$@" || _code=$?
  _pass=$(sed -n 's/^# pass //p' "$work/tap")
  _fail=$(sed -n 's/^# fail //p' "$work/tap")
  _cancelled=$(sed -n 's/^# cancelled //p' "$work/tap")
  _skip=$(sed -n 's/^# skipped //p' "$work/tap")
  _fail=$((${_fail:-0} + ${_cancelled:-0}))
  # A runner that fails without a failed test, or finds no test at all, is a failure too.
  if [ "$_fail" = 0 ] && { [ $_code -ne 0 ] || [ "${_pass:-0}" = 0 ]; }; then _fail=1; fi
  [ "$_fail" = 0 ] || broken="$broken $_name;"
  passed=$((passed + ${_pass:-0})) failed=$((failed + _fail)) skipped=$((skipped + ${_skip:-0}))
}

generated_is_current() {
  buf generate -o "$work/gen" && diff -r "$work/gen/src/gen" src/gen
}
lock_is_unchanged() {
  ! command -v git >/dev/null 2>&1 || ! git rev-parse --git-dir >/dev/null 2>&1 || git diff --exit-code -- package-lock.json
}

check "lint" npm run --silent lint
check "types" npm run --silent typecheck
check "generated code is what proto/ gives" generated_is_current
check "package-lock.json is as committed" lock_is_unchanged
check "shell scripts parse" sh -c 'for f in deploy/*.sh deploy/bin/* test/run.sh; do sh -n "$f" || exit 1; done'
check "build" npm run --silent build
# The same files as `npm test`; node reads the patterns, not this shell.
set -f
# shellcheck disable=SC2046
suite "unit, conformance and integration tests" --test-timeout=120000 $(cat test/files.txt)
set +f
program "mutated frames on every socket, quick" node test/fuzz/main.ts --quick
program "chaos, quick" node test/chaos/main.ts --quick --parallel 2
if [ -n "$e2e" ]; then
  CACHE=$(cache_dir)
  check "pod VM image" "$ROOT/dist/bin/kata-remote" image build --out "$CACHE/podvm" --cache "$CACHE/podvm-build"
  for provider in local aws azure; do
    export KATA_REMOTE_TEST_PROVIDER=$provider
    # shellcheck disable=SC2046
    suite "end-to-end tests, provider $provider" --test-concurrency=1 --test-timeout=900000 \
      $(node test/e2e/main.ts --provider $provider --list)
  done
fi

[ -z "$broken" ] || echo "failed in:$broken"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
