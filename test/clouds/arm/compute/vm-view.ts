import type { JsonObject } from "../body.ts";
import { etag, shownCommon } from "../lifecycle.ts";
import type { VirtualMachine } from "../resources.ts";

/** A VM as GET and PUT show it. */
export function renderVm(vm: VirtualMachine, expand?: string): JsonObject {
  return {
    ...shownCommon(vm),
    etag: etag(vm),
    properties: {
      hardwareProfile: { vmSize: vm.size.name },
      provisioningState: vm.state,
      vmId: vm.vmId,
      ...vm.properties,
      networkProfile: {
        networkInterfaces: vm.nics.map(({ id, primary, deleteOption }) => {
          const properties = {
            ...(primary !== undefined && { primary }),
            ...(deleteOption !== undefined && { deleteOption }),
          };
          return Object.keys(properties).length === 0 ? { id } : { id, properties };
        }),
      },
      ...(expand === "userData" && vm.userData !== undefined && { userData: vm.userData }),
      ...(expand === "instanceView" && { instanceView: renderInstanceView(vm) }),
      timeCreated: new Date(vm.createdAt).toISOString(),
    },
  };
}

const LEVEL = { Error: "Error", Info: "Info", Warning: "Warning" } as const;

/** Source: VirtualMachineInstanceView; codes `ProvisioningState/…` and `PowerState/…`. */
export function renderInstanceView(vm: VirtualMachine): JsonObject {
  const time = new Date(vm.createdAt).toISOString();
  const { error, power } = vm;
  const state = vm.state.toLowerCase();
  const statuses = [
    error !== undefined
      ? {
          code: `ProvisioningState/failed/${error.code}`,
          ...{ level: LEVEL.Error, displayStatus: "Provisioning failed", message: error.message, time },
        }
      : { code: `ProvisioningState/${state}`, level: LEVEL.Info, displayStatus: `Provisioning ${state}`, time },
    ...(power === "unknown" ? [] : [{ code: `PowerState/${power}`, level: LEVEL.Info, displayStatus: `VM ${power}` }]),
  ];
  return {
    ...(vm.computerName && { computerName: vm.computerName }),
    ...(vm.guestReady && {
      vmAgent: {
        vmAgentVersion: "Unknown",
        statuses: [
          ...(vm.awaitsGuest
            ? [{ code: "ProvisioningState/succeeded", level: LEVEL.Info, displayStatus: "Ready", time }]
            : [{ code: "ProvisioningState/Unavailable", level: LEVEL.Warning, displayStatus: "Not Ready", time }]),
        ],
      },
    }),
    disks: [
      {
        name: vm.osDisk.id.split("/").at(-1) ?? "",
        statuses: [
          { code: "ProvisioningState/succeeded", level: LEVEL.Info, displayStatus: "Provisioning succeeded", time },
        ],
      },
    ],
    hyperVGeneration: vm.size.generations === "V2" ? "V2" : "V1",
    ...(vm.bootDiagnostics && { bootDiagnostics: {} }),
    statuses,
  };
}
