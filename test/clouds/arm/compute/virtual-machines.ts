import { ArmError, badRequest, invalidParameter, notImplemented } from "../arm-error.ts";
import { checkedTags, etag, list, read } from "../lifecycle.ts";
import type { VirtualMachine } from "../resources.ts";
import { type ArmCall, type ArmReply, COMPUTE, IN_GROUP, IN_SUBSCRIPTION, page, type Route } from "../route.ts";
import { markedForDeletion } from "./marked.ts";
import { createVm } from "./vm-create.ts";
import { deleteVm } from "./vm-delete.ts";
import { POWER_ROUTES } from "./vm-power.ts";
import { updateVm } from "./vm-update.ts";
import { renderInstanceView, renderVm } from "./vm-view.ts";

const TYPE = "Microsoft.Compute/virtualMachines";
const AT = `${IN_GROUP}/${COMPUTE}/virtualMachines`;
const ONE = `${AT}/{vmName}`;
const EXPANSIONS = ["instanceView", "userData"] as const;

/** @throws ArmError 412 as If-Match and If-None-Match ask for it */
function checkPreconditions(call: ArmCall, existing: VirtualMachine | undefined): void {
  const [match, noneMatch] = [call.headers["if-match"], call.headers["if-none-match"]];
  if (noneMatch !== undefined && noneMatch !== "*") {
    throw badRequest("The If-None-Match header supports the value '*' only.");
  }
  const failed = new ArmError(
    412,
    "PreconditionFailed",
    "The precondition given in one or more of the request-header fields evaluated to false when it was tested on the server.",
  );
  if (noneMatch === "*" && existing !== undefined) throw failed;
  if (match === undefined) return;
  if (existing === undefined || (match !== "*" && match !== etag(existing))) throw failed;
}

function checkName(name: string): void {
  if (name.length <= 64 && /^[^_\W][\w.-]{0,63}(?<![-.])$/.test(name)) return;
  const message = `Resource name ${name} is invalid. The name can be up to 64 characters long. It must begin with a word character, and it must end with a word character or with '_'. The name may contain word characters or '.', '-', '_'.`;
  throw new ArmError(400, "InvalidResourceName", message);
}

async function put(call: ArmCall): Promise<ArmReply> {
  const existing = call.cloud.find(TYPE, call.id);
  checkPreconditions(call, existing);
  if (existing !== undefined) return updateVm(call, existing);
  checkName(call.params.vmName ?? "");
  return createVm(call);
}

function patch(call: ArmCall): ArmReply {
  const vm = call.cloud.need(TYPE, call.id);
  checkPreconditions(call, vm);
  if (vm.state === "Deleting") throw markedForDeletion(vm);
  const tags = checkedTags(call.body.map("tags"));
  const userData = call.body.child("properties").text("userData");
  call.commit();
  if (tags !== undefined) vm.tags = new Map(tags);
  if (userData !== undefined) vm.userData = userData;
  vm.version++;
  return { status: 200, body: renderVm(vm), headers: { etag: etag(vm) } };
}

function get(call: ArmCall): ArmReply {
  const asked = call.query.get("$expand");
  const expand = EXPANSIONS.find((e) => e.toLowerCase() === asked?.toLowerCase());
  if (asked !== undefined && expand === undefined) {
    throw invalidParameter("$expand", `The value '${asked}' of parameter '$expand' is not allowed.`);
  }
  const vm = read(call, TYPE);
  return { status: 200, body: renderVm(vm, expand), headers: { etag: etag(vm) } };
}

function listVms(call: ArmCall): ArmReply {
  for (const name of ["$filter", "$expand", "statusonly"]) {
    if (name === "$expand" && call.query.has(name) && !call.query.has("$filter")) {
      throw badRequest("$expand=instanceView can only be specified together with a valid $filter.");
    }
    if (call.query.has(name)) throw notImplemented(`the parameter ${name} of a list`);
  }
  return list(call, TYPE, (vm) => renderVm(vm));
}

function bootDiagnostics(call: ArmCall): ArmReply {
  const vm = call.cloud.need(TYPE, call.id);
  const minutes = Number(call.query.get("sasuriexpirationtimeinminutes") ?? 120);
  if (!(minutes >= 1 && minutes <= 1440)) {
    const name = "sasUriExpirationTimeInMinutes";
    throw invalidParameter(name, `${name} must be between 1 and 1440.`);
  }
  if (!vm.bootDiagnostics) {
    throw badRequest(`Boot diagnostics is not enabled on the virtual machine '${vm.name}'.`);
  }
  call.commit();
  const at = (file: string): string => {
    const path = `/bootdiag-${vm.vmId}/bootdiagnostics-${vm.name.slice(0, 9).toLowerCase()}-${vm.vmId}/${file}`;
    return `${call.base}${path}?${call.cloud.access.sign(path, "r", minutes * 60)}`;
  };
  return {
    status: 200,
    body: {
      consoleScreenshotBlobUri: at(`${vm.name}.${vm.vmId}.screenshot.bmp`),
      serialConsoleLogBlobUri: at(`${vm.name}.${vm.vmId}.serialconsole.log`),
    },
  };
}

/** Virtual machines, all but what starts and stops them. */
export const VM_ROUTES: readonly Route[] = [
  { ...{ name: "VirtualMachines_Get", method: "GET", path: ONE, group: "GetVM" }, action: `${TYPE}/read`, handle: get },
  {
    ...{ name: "VirtualMachines_CreateOrUpdate", method: "PUT", path: ONE, group: "PutVM" },
    ...{ action: `${TYPE}/write`, handle: put },
  },
  {
    ...{ name: "VirtualMachines_Update", method: "PATCH", path: ONE, group: "PutVM" },
    ...{ action: `${TYPE}/write`, handle: patch },
  },
  {
    ...{ name: "VirtualMachines_Delete", method: "DELETE", path: ONE, group: "DeleteVM" },
    ...{ action: `${TYPE}/delete`, handle: deleteVm },
  },
  {
    ...{ name: "VirtualMachines_InstanceView", method: "GET", path: `${ONE}/instanceView`, group: "GetVM" },
    action: `${TYPE}/instanceView/read`,
    handle: (call) => {
      const vm = call.cloud.need(TYPE, call.id.slice(0, -"/instanceView".length));
      return { status: 200, body: renderInstanceView(vm) };
    },
  },
  {
    ...{ name: "VirtualMachines_List", method: "GET", path: AT, group: "ListVM" },
    ...{ action: `${TYPE}/read`, handle: listVms },
  },
  {
    ...{ name: "VirtualMachines_ListAll", method: "GET", group: "ListVM" },
    path: `${IN_SUBSCRIPTION}/${COMPUTE}/virtualMachines`,
    ...{ action: `${TYPE}/read`, handle: listVms },
  },
  {
    ...{ name: "VirtualMachines_ListByLocation", method: "GET", group: "ListVM" },
    path: `${IN_SUBSCRIPTION}/${COMPUTE}/locations/{location}/virtualMachines`,
    action: `${TYPE}/read`,
    handle: (call) => {
      const here = call.cloud.all(TYPE).filter((vm) => vm.location === call.params.location?.toLowerCase());
      return page(
        call,
        here.map((vm) => renderVm(vm)),
      );
    },
  },
  {
    ...{ name: "VirtualMachines_RetrieveBootDiagnosticsData", method: "POST" },
    ...{ path: `${ONE}/retrieveBootDiagnosticsData`, action: `${TYPE}/retrieveBootDiagnosticsData/action` },
    handle: (call) => bootDiagnostics({ ...call, id: call.id.slice(0, call.id.lastIndexOf("/")) }),
  },
  ...POWER_ROUTES,
];
