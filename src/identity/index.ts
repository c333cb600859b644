export { CertificateAuthority } from "./certificate-authority.ts";
export { type KeyPair, makeCsr, makeSelfSigned, newKeyPair, spkiFingerprint } from "./keys.ts";
export { nodeCommonName, nodeIdOf } from "./names.ts";
