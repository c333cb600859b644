/** What a node says of a VM with the stock image. */
export interface StockGuestRequest {
  readonly podNetwork: object;
  /** Plain TOML. */
  readonly initdata?: string;
  readonly scratchSpace: boolean;
  /** The image has certificates of the operator. */
  readonly operatorCertificates: boolean;
  readonly tlsMinVersion?: string;
  readonly tlsCipherSuites: readonly string[];
}

/** What the node needs to call a forwarder that did not enrol. */
export interface StockGuestIdentity {
  readonly serverName: string;
  readonly serverCertificatePem: string;
  readonly caPem: string;
  readonly clientCertificatePem: string;
}
