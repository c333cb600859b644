import type { Logger } from "../../base/log.ts";
import type { CertificateAuthority } from "../../identity/index.ts";
import type { Provider } from "../../provider/index.ts";
import type { Admission } from "../capacity/index.ts";
import type { OperationQueue } from "../operation/index.ts";
import type { AdaptorStore } from "../store/index.ts";
import type { VmDefaults } from "./instance-spec.ts";

/** What the pod VM service and its operations work with. */
export interface PodVmDeps {
  readonly store: AdaptorStore;
  readonly queue: OperationQueue;
  readonly provider: Provider;
  readonly ca: CertificateAuthority;
  readonly admission: Admission;
  readonly log: Logger;
  readonly now: () => Date;
  readonly cluster: string;
  readonly defaults: VmDefaults;
  /** The same for every VM, and no secret. */
  readonly userData: Uint8Array;
  /** How long a guest's fingerprint is looked for on its console, ms. */
  readonly consoleWaitMs: number;
}
