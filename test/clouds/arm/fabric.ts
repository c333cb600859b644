import type { VirtualMachine } from "./resources.ts";
import type { WireReply, WireRequest } from "./wire.ts";

const VERSION = "2012-11-30";

/**
 * The fabric's own service at 168.63.129.16, as far as a guest needs it to say that it is ready.
 * Source: WALinuxAgent "wire" protocol: goal state, then health report with the ids out of it.
 */
export function answerFabric(request: WireRequest, vm: VirtualMachine): WireReply {
  const url = new URL(request.path, "http://168.63.129.16");
  const path = url.pathname.replace(/\/$/, "");
  const comp = url.searchParams.get("comp");
  if (path === "" && comp === "versions") {
    return xml(
      200,
      `<Versions><Preferred><Version>${VERSION}</Version></Preferred><Supported><Version>${VERSION}</Version></Supported></Versions>`,
    );
  }
  if (request.headers["x-ms-version"] !== VERSION)
    return xml(400, `<Error><Code>BadRequest</Code><Message>x-ms-version</Message></Error>`);
  if (path !== "/machine") return xml(404, "<Error><Code>NotFound</Code></Error>");
  if (request.method === "GET" && comp === "goalstate") {
    return xml(
      200,
      `<GoalState><Version>${VERSION}</Version><Incarnation>1</Incarnation><Machine><ExpectedState>Started</ExpectedState></Machine><Container><ContainerId>${vm.vmId}</ContainerId><RoleInstanceList><RoleInstance><InstanceId>_${vm.name}</InstanceId><State>Started</State></RoleInstance></RoleInstanceList></Container></GoalState>`,
    );
  }
  if (request.method !== "POST" || comp !== "health") return xml(404, "<Error><Code>NotFound</Code></Error>");
  const body = request.body.toString();
  const field = (name: string): string => new RegExp(`<${name}>([^<]*)</${name}>`).exec(body)?.[1]?.trim() ?? "";
  if (field("ContainerId") !== vm.vmId || field("InstanceId") !== `_${vm.name}`) {
    return xml(410, "<Error><Code>ResourceGone</Code></Error>");
  }
  if (field("State") === "Ready") vm.guestReady = true;
  return { status: 200, headers: {}, body: "" };
}

function xml(status: number, body: string): WireReply {
  return {
    status,
    headers: { "content-type": "text/xml; charset=utf-8" },
    body: `<?xml version="1.0" encoding="utf-8"?>${body}`,
  };
}
