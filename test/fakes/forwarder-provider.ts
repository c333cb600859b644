import type { Call } from "../../src/base/call.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { Instance, InstanceSpec } from "../../src/provider/index.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { type ForwarderOptions, StockForwarder } from "./stock-forwarder.ts";
import { ZeroProvider } from "./zero-provider.ts";

interface Machine {
  readonly forwarder: StockForwarder;
  /** The network between worker and VM. */
  readonly path: TcpProxy;
}

/** Provider zero whose instances are stock forwarders in this process, behind a network that can break. */
export class ForwarderProvider extends ZeroProvider {
  secondInterface = false;
  readonly machines = new Map<InstanceId, Machine>();
  readonly specs: InstanceSpec[] = [];
  /** What the images have of their own. */
  image: ForwarderOptions = {};

  override async createInstance(spec: InstanceSpec, call: Call): Promise<Instance> {
    this.specs.push(spec);
    const instance = await super.createInstance(spec, call);
    let machine = this.machines.get(instance.id);
    if (machine === undefined) {
      const forwarder = await StockForwarder.boot(spec.userData, this.image);
      machine = { forwarder, path: await TcpProxy.open(() => forwarder.port) };
      this.machines.set(instance.id, machine);
    }
    return { ...instance, tunnelPort: machine.path.port };
  }

  override async getInstance(id: InstanceId): Promise<Instance | undefined> {
    return this.#withPort(await super.getInstance(id));
  }

  override async deleteInstance(id: InstanceId): Promise<"deleting" | "gone"> {
    const machine = this.machines.get(id);
    this.machines.delete(id);
    await machine?.path.close();
    await machine?.forwarder.close();
    return super.deleteInstance(id);
  }

  /** The only VM there is. */
  get only(): Machine {
    const [machine, ...more] = this.machines.values();
    if (machine === undefined || more.length > 0) throw new Error(`there are ${this.machines.size} VMs`);
    return machine;
  }

  override async close(): Promise<void> {
    for (const { path, forwarder } of this.machines.values()) {
      await path.close();
      await forwarder.close();
    }
  }

  #withPort(instance: Instance | undefined): Instance | undefined {
    const port = instance && this.machines.get(instance.id)?.path.port;
    return instance === undefined || port === undefined ? instance : { ...instance, tunnelPort: port };
  }
}
