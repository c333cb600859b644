import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { GuestSpec } from "../../src/relay/index.ts";
import { RelayFixture } from "../support/relay-fixture.ts";
import type { BenchScope } from "./bench-scope.ts";
import { NetworkNamespace } from "./network-namespace.ts";
import { PeerProcess } from "./peer-process.ts";

/** A guest's forwarder in a network namespace of its own, in front of an agent that does nothing, and who may call it. */
export class TunnelWorld implements AsyncDisposable {
  readonly fixture: RelayFixture;
  readonly guest: PeerProcess<number>;
  readonly spec: GuestSpec;
  readonly folder: string;
  readonly #owned: AsyncDisposableStack;

  private constructor(
    folder: string,
    parts: { fixture: RelayFixture; guest: PeerProcess<number>; address: string },
    owned: AsyncDisposableStack,
  ) {
    this.folder = folder;
    this.fixture = parts.fixture;
    this.guest = parts.guest;
    this.spec = parts.fixture.spec(parts.guest.ready, { addresses: [parts.address] });
    this.#owned = owned;
  }

  /** @param name of its folder */
  static async open(scope: BenchScope, name: string): Promise<TunnelWorld> {
    await using owned = new AsyncDisposableStack();
    const fixture = owned.use(await RelayFixture.create());
    const namespace = owned.use(await NetworkNamespace.create(scope.network));
    const folder = join(scope.folder, name);
    mkdirSync(folder);
    const caPath = join(folder, "ca.pem");
    writeFileSync(caPath, fixture.ca.caPem);
    const guest = owned.use(
      await PeerProcess.start<number>({
        script: join(import.meta.dirname, "guest-process.ts"),
        args: [caPath, folder, namespace.address],
        through: namespace.through,
      }),
    );
    return new TunnelWorld(folder, { fixture, guest, address: namespace.address }, owned.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}
