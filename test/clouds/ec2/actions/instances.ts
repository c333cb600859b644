import type { Ec2Account } from "../account.ts";
import { ApiError } from "../api-error.ts";
import { renderInstance, renderState, STATE_CODES, type StateName, type StoredInstance } from "../instance.ts";
import { applyFilters, type FilterFields, page } from "../listing.ts";
import type { XmlObject } from "../xml.ts";
import type { Action } from "./action.ts";
import { refuseMissingInstances } from "./launch-request.ts";

interface Seen {
  readonly instance: StoredInstance;
  readonly state: StateName;
}

const FILTERS: FilterFields<Seen> = {
  "instance-id": (i) => [i.instance.id],
  "instance-state-name": (i) => [i.state],
  "instance-state-code": (i) => [String(STATE_CODES[i.state])],
  "instance-type": (i) => [i.instance.type.name],
  "image-id": (i) => [i.instance.imageId],
  "client-token": (i) => [i.instance.clientToken ?? ""],
  "subnet-id": (i) => [i.instance.subnet.id],
  "vpc-id": (i) => [i.instance.subnet.vpcId],
  "availability-zone": (i) => [i.instance.subnet.zone],
  "instance-lifecycle": (i) => (i.instance.spot ? ["spot"] : []),
  "reservation-id": (i) => [i.instance.reservationId],
};

export const describeInstances: Action = ({ account, params }) => {
  const ids = params.texts("InstanceId");
  if (ids.length > 0 && params.text("MaxResults") !== undefined) {
    throw new ApiError(
      "InvalidParameterCombination",
      "The parameter instancesSet cannot be used with the parameter maxResults",
    );
  }
  const visible = lookAt(account);
  refuseMissingInstances(ids, new Set(visible.map((i) => i.instance.id)));
  const asked = ids.length === 0 ? visible : visible.filter((i) => ids.includes(i.instance.id));
  const matching = applyFilters(asked, params.list("Filter"), FILTERS, (i) => i.instance.tags);
  const { items, nextToken } = page(account, params, matching, { min: 5, max: 1000 });
  const reservations = Map.groupBy(items, (i) => i.instance.reservationId);
  return {
    reservationSet: [...reservations].map(([reservationId, members]) => ({
      ...{ reservationId, ownerId: account.ownerId, groupSet: [] },
      instancesSet: members.map((i) => renderInstance(i.instance, i.state, account.ownerId)),
    })),
    nextToken,
  };
};

export const terminateInstances: Action = async ({ account, params, endDryRun }) => {
  const ids = params.texts("InstanceId");
  if (ids.length === 0) throw new ApiError("MissingParameter", "The request must contain the parameter InstanceId");
  const visible = new Map(lookAt(account).map((i) => [i.instance.id, i] as const));
  refuseMissingInstances(ids, new Set(visible.keys()));
  for (const id of ids) {
    if (visible.get(id)?.instance.protectedFromTermination === true) {
      throw new ApiError(
        "OperationNotPermitted",
        `The instance '${id}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.`,
      );
    }
  }
  endDryRun();
  const changes: XmlObject[] = [];
  for (const id of ids) {
    const before = visible.get(id);
    if (before === undefined) continue;
    if (before.instance.endedAt === undefined) {
      account.end(id, "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown");
      await account.host?.terminate(id);
    }
    // EC2 says shutting-down to who asks for it, however fast the instance ends.
    const state = before.state === "terminated" ? "terminated" : "shutting-down";
    changes.push({ instanceId: id, currentState: renderState(state), previousState: renderState(before.state) });
  }
  return { instancesSet: changes };
};

export const getConsoleOutput: Action = async ({ account, params, endDryRun }) => {
  const id = params.need("InstanceId");
  params.flag("Latest");
  const found = lookAt(account).find((i) => i.instance.id === id);
  refuseMissingInstances([id], new Set(found === undefined ? [] : [id]));
  endDryRun();
  const text = (await account.host?.console?.(id)) ?? found?.instance.console ?? "";
  const output = Buffer.from(text.slice(-65_536)).toString("base64");
  return { instanceId: id, timestamp: new Date(account.now()), output: output === "" ? undefined : output };
};

/** What a call sees, in the order in which it was made, so that pages stay the same: an instance that is too young is not shown, and each call makes it older. */
function lookAt(account: Ec2Account): Seen[] {
  const seen: Seen[] = [];
  for (const instance of account.instances.values()) {
    const state = account.state(instance);
    if (state === undefined) continue;
    if (instance.hiddenFor > 0) instance.hiddenFor--;
    else seen.push({ instance, state });
  }
  return seen;
}
