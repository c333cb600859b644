/** A cloud whose VMs run here: an endpoint with the cloud's own protocol, an account in it, and what was published there. */
export interface TestCloud extends AsyncDisposable {
  /** `[providers.<name>]` of the adaptor's configuration. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** For the adaptor: credentials, as the cloud's SDK looks for them. */
  readonly env: NodeJS.ProcessEnv;
  /** Removes what was published. */
  unpublish(): Promise<void>;
  /** Every resource in the account that a test has made, and everything of it that is on this host. */
  leftovers(): Promise<string[]>;
}

export const PROVIDERS = ["local", "aws", "azure"] as const;
export type ProviderName = (typeof PROVIDERS)[number];

/** Whose VMs the tests that go for any provider use: `npm run test:e2e -- --provider NAME` says it. */
export function chosenProvider(): ProviderName {
  const name = process.env.KATA_REMOTE_TEST_PROVIDER ?? "local";
  const known = PROVIDERS.find((p) => p === name);
  if (known === undefined) throw new Error(`KATA_REMOTE_TEST_PROVIDER is ${name}, not one of ${PROVIDERS.join(", ")}`);
  return known;
}
