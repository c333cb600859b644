import { type Static, Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { Fault } from "../../base/fault.ts";
import { type PodNetworkPlan, parsePlan } from "../../podnetwork/index.ts";

const Text = Type.String({ maxLength: 100 });

/** `pod-network` of the stock adaptor's apf.json. Keys that it may add are ignored, as its own forwarder does. */
const StockPodNetwork = Type.Object({
  podip: Text,
  "pod-hw-addr": Text,
  interface: Text,
  "worker-node-ip": Text,
  "tunnel-type": Text,
  routes: Type.Union([
    Type.Null(),
    Type.Array(
      Type.Object({
        dst: Text,
        gw: Type.Optional(Text),
        dev: Type.Optional(Text),
        protocol: Type.Optional(Text),
        scope: Type.Optional(Text),
      }),
      { maxItems: 4096 },
    ),
  ]),
  neighbors: Type.Optional(
    Type.Union([
      Type.Null(),
      Type.Array(Type.Object({ ip: Text, "hw-addr": Text, dev: Type.Optional(Text), state: Type.Optional(Text) }), {
        maxItems: 4096,
      }),
    ]),
  ),
  mtu: Type.Integer({ minimum: 0, maximum: 65_535 }),
  "vxlan-port": Type.Optional(Type.Integer({ minimum: 0, maximum: 65_535 })),
  "vxlan-id": Type.Optional(Type.Integer()),
  dedicated: Type.Optional(Type.Boolean()),
  "external-net-via-pod-vm": Type.Optional(Type.Boolean()),
});
type StockPodNetwork = Static<typeof StockPodNetwork>;
type StockRoute = NonNullable<StockPodNetwork["routes"]>[number];

const ORIGIN = "pod-network of apf.json";
/** The stock forwarder gives its VXLAN no more: a 1500 byte network below carries 50 bytes of headers. */
const MAX_MTU = 1450;
/** The adaptor's default, RFC 7348. */
const VXLAN_PORT = 4789;
/** Source: include/uapi/linux/rtnetlink.h */
const PROTOCOLS: ReadonlyMap<string, number> = new Map([
  ["kernel", 2],
  ["boot", 3],
  ["static", 4],
  ["dhcp", 16],
]);
const SCOPES: ReadonlyMap<string, number> = new Map([
  ["site", 200],
  ["link", 253],
  ["host", 254],
  ["nowhere", 255],
]);

/**
 * The stock worker's description of a pod's network as a plan of ours. Both are one VXLAN between the VM and the worker;
 * the list has the connected route too, so that nothing comes from the address itself.
 * Source: peer-pods contract, apf.json and the stock forwarder's network set-up.
 * @throws Fault invalid_argument naming the field; unimplemented for a second network card, which this image leaves alone
 */
export function stockPlan(input: unknown): PodNetworkPlan {
  const stock = parseConfig(StockPodNetwork, input, ORIGIN);
  if (stock["tunnel-type"] !== "vxlan") throw invalid("tunnel-type", stock["tunnel-type"], "vxlan is known");
  for (const key of ["dedicated", "external-net-via-pod-vm"] as const) {
    if (stock[key] === true)
      throw new Fault(
        "unimplemented",
        `${ORIGIN}: ${key} needs the VM's second network card, which this image does not use: switch it off at the adaptor`,
      );
  }
  const { interface: name, neighbors } = stock;
  const [address = "", length = ""] = stock.podip.split("/");
  const plan = {
    version: 1,
    tunnel: {
      kind: "vxlan",
      port: stock["vxlan-port"] || VXLAN_PORT,
      workerAddress: unmapped(stock["worker-node-ip"].split("/")[0] ?? ""),
      vnis: [stock["vxlan-id"] ?? 0],
    },
    interfaces: [
      {
        name,
        mac: stock["pod-hw-addr"].toLowerCase(),
        mtu: Math.min(stock.mtu || MAX_MTU, MAX_MTU),
        addresses: [{ address: unmapped(address), prefixLength: length === "" ? -1 : Number(length) }],
      },
    ],
    routes: (stock.routes ?? []).map((route) => planRoute(route, name)),
    neighbours: (neighbors ?? []).map((n) => {
      if ((n.state ?? "permanent") !== "permanent")
        throw invalid(`state of neighbor ${n.ip}`, String(n.state), "permanent is known");
      return { address: unmapped(n.ip), mac: n["hw-addr"].toLowerCase(), device: n.dev || name };
    }),
  };
  return parsePlan(plan, ORIGIN);
}

function planRoute({ dst, gw, dev, protocol, scope }: StockRoute, name: string): PodNetworkPlan["routes"][number] {
  const [network = "", length = ""] = dst.split("/");
  const direct = gw === undefined || gw === "";
  const kernelProtocol = number(PROTOCOLS, "protocol", protocol, dst);
  // The stock forwarder gives every route without a gateway this scope, whatever the list says.
  const kernelScope = direct ? SCOPES.get("link") : number(SCOPES, "scope", scope, dst);
  return {
    destination: `${unmapped(network)}/${length}`,
    device: dev || name,
    ...(direct ? {} : { gateway: unmapped(gw) }),
    ...(kernelProtocol === undefined ? {} : { protocol: kernelProtocol }),
    ...(kernelScope === undefined ? {} : { scope: kernelScope }),
  };
}

function number(
  known: ReadonlyMap<string, number>,
  what: string,
  text: string | undefined,
  dst: string,
): number | undefined {
  if (text === undefined || text === "") return undefined;
  const value = known.get(text);
  if (value === undefined)
    throw invalid(`${what} of the route to ${dst}`, text, `${[...known.keys()].join(", ")} are known`);
  return value;
}

/** The adaptor's libraries write IPv4 as ::ffff:a.b.c.d now and then, with IPv4's prefix length behind it. */
function unmapped(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, "");
}

function invalid(field: string, value: string, remedy: string): Fault {
  return new Fault("invalid_argument", `${ORIGIN}: ${field} "${value.slice(0, 100)}" is not valid: ${remedy}`);
}
