// An EC2-protocol endpoint whose instances are VMs of this machine, as a program:
//   node main.ts --folder DIR [--host ADDRESS] [--port N] [--cidr A.B.0.0/16] [--memory-mib N]
// Needs root, QEMU and OVMF. Clients sign with the key pair AKIATESTTESTTESTTEST, test/secret+key.
import { parseArgs } from "node:util";
import { Ec2WithMachines } from "./virtual-machines.ts";

const { values } = parseArgs({
  options: {
    folder: { type: "string" },
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "4566" },
    cidr: { type: "string" },
    "memory-mib": { type: "string", default: "768" },
  },
});
if (values.folder === undefined) {
  console.error("--folder is missing: machines' disks go there");
  process.exit(2);
}
const cloud = await Ec2WithMachines.open({
  ...{ folder: values.folder, host: values.host, port: Number(values.port) },
  ...(values.cidr === undefined ? {} : { cidr: values.cidr }),
  memoryMiB: Number(values["memory-mib"]),
});
const { account } = cloud.endpoint;
console.log(
  `EC2 endpoint of ${account.region} on ${values.host}:${cloud.endpoint.port}, network ${account.subnets[0]?.prefix}.0/24 and more`,
);
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, () => {
    cloud[Symbol.asyncDispose]().then(
      () => process.exit(0),
      (e: unknown) => {
        console.error(e);
        process.exit(1);
      },
    );
  });
}
