import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newSandboxId, type SandboxId } from "../../src/base/ids.ts";
import { silentLogger } from "../../src/base/log.ts";
import { CertificateAuthority, makeCsr, newKeyPair } from "../../src/identity/index.ts";
import { type GuestSpec, InProcessRelay } from "../../src/relay/index.ts";

/** A relay, a CA, a node's identity and a directory; removed again by `await using`. */
export class RelayFixture implements AsyncDisposable {
  readonly dir: string;
  readonly ca: CertificateAuthority;
  readonly identity: GuestSpec["identity"];
  readonly relay: InProcessRelay;
  readonly sandboxId: SandboxId = newSandboxId();
  readonly stages: string[] = [];
  readonly csrs: string[] = [];

  private constructor(parts: {
    dir: string;
    ca: CertificateAuthority;
    identity: GuestSpec["identity"];
    keepAliveMs: number;
  }) {
    this.dir = parts.dir;
    this.ca = parts.ca;
    this.identity = parts.identity;
    this.relay = new InProcessRelay({ log: silentLogger(), keepAliveMs: parts.keepAliveMs, keepAliveDeadlineMs: 300 });
  }

  static async create(options: { readonly keepAliveMs?: number } = {}): Promise<RelayFixture> {
    const dir = await mkdtemp(join(tmpdir(), "relay-"));
    const ca = await CertificateAuthority.open(join(dir, "ca"));
    const { keyPem } = newKeyPair();
    const certificatePem = await ca.signNode(makeCsr(keyPem, ""), "node-1");
    const identity = { caPem: ca.caPem, certificatePem, keyPem };
    return new RelayFixture({ dir, ca, identity, keepAliveMs: options.keepAliveMs ?? 60_000 });
  }

  spec(port: number, change: Partial<GuestSpec> = {}): GuestSpec {
    return {
      sandboxId: this.sandboxId,
      addresses: ["127.0.0.1"],
      port,
      hostname: "pod",
      identity: this.identity,
      sign: async (csrPem) => {
        this.csrs.push(csrPem);
        return { certificatePem: await this.ca.signGuest(csrPem, this.sandboxId), verifiedBy: "address" };
      },
      onStage: (stage) => this.stages.push(stage),
      lostAfterMs: 10_000,
      ...change,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.relay[Symbol.asyncDispose]();
    await rm(this.dir, { recursive: true, force: true });
  }
}
