import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { background, withDeadline } from "../../../src/base/call.ts";
import { exec } from "../../../src/base/exec.ts";
import { freeNetwork, type MetadataRequest, macOf } from "./index.ts";
import { Network } from "./network.ts";

/** What busybox' udhcpc runs: it takes the lease as it was given. */
const LEASE_SCRIPT = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip link set $interface mtu $mtu
ip route add default via $router
`;

const notRoot = process.getuid?.() === 0 ? false : "network namespaces need root";

describe("a cloud's network", { timeout: 60_000, skip: notRoot }, () => {
  const seen: MetadataRequest[] = [];
  let network: Network;
  let folder: string;
  let cidr: string;
  let address: string;
  /** Stands for a machine: a namespace with one card. */
  let machine: ChildProcess;

  const inMachine = async (...command: string[]): Promise<string> => {
    const args = [`--net=/proc/${machine.pid}/ns/net`, ...command];
    return (await exec("nsenter", args, withDeadline(20_000))).stdout;
  };

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "network-"));
    cidr = await freeNetwork();
    const prefix = cidr.split(".").slice(0, 2).join(".");
    address = `${prefix}.1.20`;
    network = await Network.open({
      ...{ cidr, mtu: 9001, metadataAddresses: ["169.254.169.254"] },
      subnets: [
        { id: "a", cidr: `${prefix}.0.0/24` },
        { id: "b", cidr: `${prefix}.1.0/24` },
      ],
      machineAt: (source) => (source === address ? "i-1" : undefined),
      metadata: (request) => {
        seen.push(request);
        if (request.path === "/closed") return undefined;
        if (request.path === "/broken") throw new Error("a handler that throws, on purpose");
        return { status: 200, headers: { "x-ttl": "60" }, body: `for ${request.machineId}: ${request.body}` };
      },
    });
    machine = spawn("unshare", ["--net", "sleep", "1000"], { stdio: "ignore" });
    await once(machine, "spawn");
    await network.addTap("tap0", { mac: macOf("ec2", address), address, hopLimit: 1 });
    const [program = "", ...prefixArgs] = network.prefix;
    const input = `link add c0 mtu 9001 type veth peer name eth0 address ${macOf("ec2", address)} mtu 9001 netns ${machine.pid}\nlink set c0 master br0 up\n`;
    await exec(program, [...prefixArgs, "ip", "-batch", "-"], background(), { input });
    await writeFile(join(folder, "lease"), LEASE_SCRIPT, { mode: 0o755 });
    await inMachine("ip", "link", "set", "eth0", "up");
    await inMachine("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", join(folder, "lease"));
  });
  after(async () => {
    machine.kill("SIGKILL");
    await network.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("gives a machine its address, router and packet size by DHCP", async () => {
    const [link] = JSON.parse(await inMachine("ip", "-json", "addr", "show", "eth0")) as [
      { mtu: number; addr_info: { local: string; prefixlen: number; family: string }[] },
    ];
    assert.equal(link.mtu, 9001);
    const [ipv4] = link.addr_info.filter((a) => a.family === "inet");
    assert.deepEqual([ipv4?.local, ipv4?.prefixlen], [address, 24]);
    assert.match(await inMachine("ip", "route"), new RegExp(`default via ${address.replace(/20$/, "1")} `));
  });

  it("has a metadata service that knows who calls, and that answers with few hops", async () => {
    const body = await inMachine("busybox", "wget", "-q", "-O", "-", "--post-data", "hi", "http://169.254.169.254/a?b");
    assert.equal(body, "for i-1: hi");
    const [request] = seen;
    assert.deepEqual(
      [request?.source, request?.destination, request?.method, request?.path],
      [address, "169.254.169.254", "POST", "/a?b"],
    );
    const [program = "", ...args] = network.prefix;
    const { stdout } = await exec(program, [...args, "ip", "route", "get", address], background());
    const route = await exec(program, [...args, "ip", "route", "show", address], background());
    assert.match(stdout, /dev br0/);
    assert.match(route.stdout, /hoplimit 1\b/);
  });

  it("fails one request when its handler does, and closes a connection when told", async () => {
    const get = (path: string) => inMachine("busybox", "wget", "-q", "-O", "-", `http://169.254.169.254${path}`);
    await assert.rejects(get("/broken"), /500/);
    await assert.rejects(get("/closed"), /error getting response/);
    assert.equal(await get("/again"), "for i-1: ");
  });

  it("connects machines and this host", async () => {
    const server = createServer((socket) => socket.end("from the host\n")).listen(0, network.hostAddress);
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    assert.equal(await inMachine("busybox", "nc", network.hostAddress, String(port)), "from the host\n");
    server.close();
    const reachable = await exec("busybox", ["ping", "-c", "1", "-W", "5", address], background());
    assert.match(reachable.stdout, / 1 packets received/);
  });

  it("is gone when it is closed, with what this host had of it", async () => {
    const other = await Network.open({
      ...{ cidr: await freeNetwork(), mtu: 1500, subnets: [], metadataAddresses: [], machineAt: () => undefined },
      metadata: () => undefined,
    });
    const links = async () => JSON.parse((await exec("ip", ["-json", "addr"], background())).stdout) as object[];
    const has = async () => JSON.stringify(await links()).includes(`"${other.hostAddress}"`);
    assert.ok(await has());
    await other.close();
    assert.ok(!(await has()));
  });
});
