export { CertificateAuthority } from "./certificate-authority.ts";
export { type KeyPair, makeCsr, makeSelfSigned, newKeyPair, spkiFingerprint } from "./keys.ts";
export { nodeCommonName, nodeIdOf } from "./names.ts";
export { Sealer, type SealerOptions } from "./sealer.ts";
export { makeStockVmIdentity, type StockVmIdentity, signStockClient } from "./stock-certificates.ts";
