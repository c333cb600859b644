import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { checkContainerId } from "../../base/ids.ts";
import type { CreateContainerRequest } from "../../gen/agent/agent.ts";
import { tidyWhenQuiet } from "../system/garbage.ts";
import { Container, type ContainerDeps } from "./container.ts";
import { removeCopies } from "./container-copies.ts";

/** The containers of this VM by id. */
export class Containers {
  readonly #deps: ContainerDeps;
  readonly #byId = new Map<string, Container>();

  constructor(deps: ContainerDeps) {
    this.#deps = deps;
  }

  /** @throws Fault already_exists; whatever Container.create throws, leaving nothing behind */
  async create(request: CreateContainerRequest, call: Call): Promise<void> {
    const id = checkContainerId(request.containerId);
    if (this.#byId.has(id)) throw new Fault("already_exists", `container ${id} exists already`);
    const device = request.devices[0];
    if (device !== undefined) {
      throw new Fault(
        "invalid_argument",
        `container ${id}: device "${device.containerPath}" of type "${device.type}" cannot be given to a pod VM`,
      );
    }
    const container = new Container(request, this.#deps);
    tidyWhenQuiet(); // later, then: a pod that starts has better things to do
    this.#byId.set(id, container); // now, so that a second request for the id meets it
    try {
      await container.create(request, call);
    } catch (e) {
      this.#byId.delete(id);
      throw e;
    }
  }

  /** @throws Fault invalid_argument for an id that cannot be one, not_found */
  get(containerId: string): Container {
    const found = this.#byId.get(checkContainerId(containerId));
    if (found === undefined) throw new Fault("not_found", `container ${containerId} does not exist`);
    return found;
  }

  async remove(containerId: string, call: Call): Promise<void> {
    // Of a creation that got no further than its files.
    if (!this.#byId.has(checkContainerId(containerId))) removeCopies(this.#deps.paths, containerId);
    const container = this.get(containerId);
    await container.remove(call);
    this.#byId.delete(containerId);
    tidyWhenQuiet();
  }

  async removeAll(call: Call): Promise<void> {
    await Promise.all([...this.#byId.keys()].map((id) => this.remove(id, call)));
  }
}
