import { setTimeout as delay } from "node:timers/promises";
import { Fault } from "../../base/fault.ts";
import type { GuestLog } from "../system/guest-log.ts";
import { type HttpReply, type HttpRequest, httpRequest } from "./http-request.ts";

/** Azure's WireServer. Source: "What is IP address 168.63.129.16?" */
const HOST = "168.63.129.16";
const VERSION = { "x-ms-version": "2012-11-30" };
const REQUEST_TIMEOUT_MS = 5000;
const ATTEMPTS = 20;
const PAUSE_MS = 3000;

/**
 * Tells Azure that the machine has started. A VM made with an osProfile is "creating" until somebody says so, and has
 * failed after 40 minutes.
 * Source: Azure, "Creating generalized images without a provisioning agent".
 */
export async function reportReady(
  log: GuestLog,
  options: { readonly host?: string; readonly pauseMs?: number } = {},
): Promise<void> {
  const { host = HOST, pauseMs = PAUSE_MS } = options;
  for (let attempt = 1; ; attempt += 1) {
    try {
      await report(host);
      log.info("reported to Azure as ready");
      return;
    } catch (e) {
      if (attempt >= ATTEMPTS) {
        // The pod runs; Azure may call its VM failed.
        log.warn("could not report to Azure as ready", { err: Fault.from(e).fullMessage });
        return;
      }
      await delay(pauseMs, undefined, { ref: false });
    }
  }
}

async function report(host: string): Promise<void> {
  const ask = async (request: Omit<HttpRequest, "host">): Promise<HttpReply> => {
    const reply = await httpRequest({ ...request, host }, AbortSignal.timeout(REQUEST_TIMEOUT_MS));
    if (reply.status < 300) return reply;
    throw new Fault(
      "unavailable",
      `Azure's WireServer answered ${request.method} ${request.path} with ${reply.status}`,
    );
  };
  const { body } = await ask({ method: "GET", path: "/machine/?comp=goalstate", headers: VERSION });
  const goal = body.toString("utf8");
  const element = (name: string): string => {
    const text = new RegExp(`<${name}>([^<]+)</${name}>`).exec(goal)?.[1];
    if (text === undefined) throw new Fault("internal", `the goal state of Azure's WireServer has no ${name}`);
    return text;
  };
  await ask({
    method: "POST",
    path: "/machine?comp=health",
    headers: { ...VERSION, "content-type": "text/xml;charset=utf-8" },
    body: health(element("Incarnation"), element("ContainerId"), element("InstanceId")),
  });
}

function health(incarnation: string, container: string, instance: string): string {
  return [
    '<?xml version="1.0" encoding="utf-8"?>',
    '<Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">',
    `<GoalStateIncarnation>${incarnation}</GoalStateIncarnation>`,
    `<Container><ContainerId>${container}</ContainerId><RoleInstanceList><Role><InstanceId>${instance}</InstanceId>`,
    "<Health><State>Ready</State></Health></Role></RoleInstanceList></Container></Health>",
  ].join("");
}
