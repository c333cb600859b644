/** Driver of a Storage whose source is an image reference. Source: kata-agent protocol, image_guest_pull. */
export const GUEST_PULL_DRIVER = "image_guest_pull";

/** An entry of docker's config.json, as pull secrets carry it. */
export interface RegistryLogin {
  /** base64 of `user:password`. */
  readonly auth?: string;
  readonly username?: string;
  readonly password?: string;
  /** OAuth2 refresh token. */
  readonly identitytoken?: string;
  /** Bearer token that is used as it is. */
  readonly registrytoken?: string;
}

/** How one registry is reached, by its host (`registry.example.com:5000`). */
export interface RegistrySettings {
  /** Base URLs that are asked first, in order: `https://cache.example.com[/prefix]`. */
  readonly mirrors?: readonly string[];
  /** The only CAs that are trusted for this host, PEM. */
  readonly caPem?: string;
  /** Speaks HTTP without TLS. */
  readonly plainHttp?: boolean;
  /** Any certificate is taken. */
  readonly skipVerify?: boolean;
}

/** What a guest needs to pull images: JSON of Guest.SetImageSettings. Whatever is left out has its default. */
export interface ImageSettings {
  /** By registry host, perhaps with the start of a repository's path behind it. */
  readonly auths?: Readonly<Record<string, RegistryLogin>>;
  readonly registries?: Readonly<Record<string, RegistrySettings>>;
  /** Trusted beside the public CAs, PEM. */
  readonly caPem?: string;
  /** Whom to ask for registries' addresses, `address[:port]`; absent or empty: whom the guest's own network names. */
  readonly nameservers?: readonly string[];
  /** A registry that sends nothing for so long is asked again, ms. */
  readonly stallMs?: number;
  /** How often in a row without progress. */
  readonly attempts?: number;
  /** Budget of a whole pull, ms. */
  readonly pullTimeoutMs?: number;
}

/** Driver option of a guest-pull Storage: the image's manifest or index must have this digest. Ours; other agents ignore it. */
export const PULL_DIGEST_OPTION = "kata-remote.digest=";
