import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { openSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { TestImage } from "./test-image.ts";

export interface RegistryLogin {
  readonly username: string;
  readonly password: string;
}

/** Debian's docker-registry with TLS and htpasswd, for tests. */
export class DockerRegistry implements AsyncDisposable {
  readonly port: number;
  readonly caPem: string;
  readonly login: RegistryLogin = { username: "puller", password: "s3cret-for-tests" };
  readonly #child: ChildProcess;
  readonly #folder: string;

  private constructor(parts: { port: number; caPem: string; child: ChildProcess; folder: string }) {
    this.port = parts.port;
    this.caPem = parts.caPem;
    this.#child = parts.child;
    this.#folder = parts.folder;
  }

  /**
   * @param folder empty; everything of it goes there
   * @param addresses under which clients know this machine
   */
  static async start(folder: string, addresses: readonly string[]): Promise<DockerRegistry> {
    const names = ["127.0.0.1", ...addresses].map((a) => `IP:${a}`).join(",");
    const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
    const subject = ["-subj", "/CN=registry of a test", "-addext", `subjectAltName=${names}`];
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    execFileSync("openssl", ["req", "-x509", ...curve, ...subject, "-keyout", key, "-out", certificate], {
      stdio: "ignore",
    });
    const login = { username: "puller", password: "s3cret-for-tests" };
    // The registry takes bcrypt only; libcrypt has it, and perl is part of every Debian.
    const script = "print crypt($ARGV[0], q($2b$05$Zs7Jx1qVn3uXw5yTb9eOuu))";
    const hash = execFileSync("perl", ["-e", script, login.password], { encoding: "utf8" });
    writeFileSync(join(folder, "htpasswd"), `${login.username}:${hash}\n`);
    const port = await freePort();
    writeFileSync(join(folder, "config.yml"), configuration(folder, port, key, certificate));
    const log = openSync(join(folder, "registry.log"), "a");
    const child = spawn("docker-registry", ["serve", join(folder, "config.yml")], { stdio: ["ignore", log, log] });
    const registry = new DockerRegistry({ port, caPem: readFileSync(certificate, "utf8"), child, folder });
    await registry.#untilUp();
    return registry;
  }

  get log(): string {
    return readFileSync(join(this.#folder, "registry.log"), "utf8");
  }

  /** Takes connections and answers none until `resume`. */
  pause(): void {
    this.#child.kill("SIGSTOP");
  }

  resume(): void {
    this.#child.kill("SIGCONT");
  }

  /** Pushes an image, its layers first. */
  async push(repository: string, tag: string, image: TestImage): Promise<void> {
    for (const [digest, bytes] of image.blobs) {
      const begun = await this.#send("POST", `/v2/${repository}/blobs/uploads/`);
      const place = new URL(begun.location, `https://127.0.0.1:${this.port}`);
      place.searchParams.set("digest", digest);
      await this.#send("PUT", place.pathname + place.search, bytes, "application/octet-stream");
    }
    await this.#send("PUT", `/v2/${repository}/manifests/${tag}`, image.manifest, image.mediaType);
  }

  /** File in which the registry keeps a blob: to damage it. */
  blobFile(digest: string): string {
    const hex = digest.replace("sha256:", "");
    return join(this.#folder, "data/docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }

  async #untilUp(): Promise<void> {
    for (const end = Date.now() + 30_000; ; await delay(50)) {
      if (this.#child.exitCode !== null || Date.now() > end)
        throw new Error(`docker-registry did not start: ${this.log}`);
      const up = await this.#send("GET", "/v2/").catch(() => undefined);
      if (up !== undefined) return;
    }
  }

  async #send(method: string, path: string, body?: Buffer, type?: string): Promise<{ readonly location: string }> {
    const sent = request({
      ...{ host: "127.0.0.1", port: this.port, path, method, ca: this.caPem },
      auth: `${this.login.username}:${this.login.password}`,
      headers: type === undefined ? { "content-length": 0 } : { "content-type": type, "content-length": body?.length },
    });
    sent.end(body);
    const [response] = (await once(sent, "response")) as [import("node:http").IncomingMessage];
    let said = "";
    for await (const part of response.setEncoding("utf8")) said += part;
    if ((response.statusCode ?? 500) >= 300) throw new Error(`${method} ${path}: ${response.statusCode} ${said}`);
    return { location: response.headers.location ?? "" };
  }
}

function configuration(folder: string, port: number, key: string, certificate: string): string {
  return JSON.stringify({
    version: 0.1,
    log: { accesslog: { disabled: false }, level: "info" },
    storage: { filesystem: { rootdirectory: join(folder, "data") } },
    http: { addr: `0.0.0.0:${port}`, tls: { key, certificate } },
    auth: { htpasswd: { realm: "test", path: join(folder, "htpasswd") } },
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}
