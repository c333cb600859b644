import { randomUUID } from "node:crypto";
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { Disk, VirtualMachine } from "./resources.ts";
import type { Subscription } from "./subscription.ts";
import type { WireReply, WireRequest } from "./wire.ts";

const PAGE = 512;
/** Most that one Put Page takes. Source: learn.microsoft.com "Put Page". */
const MOST_BYTES = 4 << 20;

/** Blob storage as far as managed disks and boot diagnostics need it, opened by shared access signatures only. */
export class BlobStore {
  readonly #folder: string;
  readonly #cloud: Subscription;
  /** Pages that were written, by path: first and last byte. */
  readonly #written = new Map<string, [number, number][]>();

  constructor(deps: { readonly folder: string; readonly cloud: Subscription }) {
    this.#folder = deps.folder;
    this.#cloud = deps.cloud;
  }

  owns(path: string): boolean {
    return /^\/(md-impexp|bootdiag)-/.test(path);
  }

  async answer(request: WireRequest): Promise<WireReply> {
    const url = new URL(request.path, "https://blob");
    const writing = request.method === "PUT";
    const refused = this.#cloud.access.check(url.pathname, url.searchParams, writing ? "w" : "r");
    if (refused !== undefined) return xmlError(403, "AuthenticationFailed", refused);
    const machine = this.#cloud
      .all("Microsoft.Compute/virtualMachines")
      .find((vm) => url.pathname.startsWith(`/bootdiag-${vm.vmId}/`));
    if (machine !== undefined) return this.#console(machine, url.pathname, request);
    const disk = this.#cloud.all("Microsoft.Compute/disks").find((d) => d.blob === url.pathname);
    if (disk === undefined) return xmlError(404, "BlobNotFound", "The specified blob does not exist.");
    const comp = url.searchParams.get("comp");
    if (writing && comp === "page") return this.#putPage(disk, request);
    if (request.method === "GET" && comp === "pagelist") return this.#pageList(disk);
    if ((request.method === "GET" || request.method === "HEAD") && comp === null) return this.#read(disk, request);
    return xmlError(
      403,
      "AuthorizationPermissionMismatch",
      "This request is not authorized to perform this operation.",
    );
  }

  async #putPage(disk: Disk, request: WireRequest): Promise<WireReply> {
    const bytes = disk.uploadBytes ?? 0;
    const action = header(request, "x-ms-page-write")?.toLowerCase();
    const range = parseRange(header(request, "x-ms-range") ?? header(request, "range"));
    if (action !== "update" && action !== "clear") return xmlError(400, "MissingRequiredHeader", "x-ms-page-write");
    if (range === undefined) return xmlError(400, "MissingRequiredHeader", "Range");
    const [from, to] = range;
    if (from % PAGE !== 0 || (to + 1) % PAGE !== 0 || to < from) {
      return xmlError(416, "InvalidPageRange", "The page range specified is invalid.");
    }
    if (to >= bytes) return xmlError(416, "InvalidPageRange", "The page range is beyond the blob's size.");
    if (action === "update" && to - from + 1 > MOST_BYTES) {
      return xmlError(
        413,
        "RequestBodyTooLarge",
        "The request body is too large and exceeds the maximum permissible limit.",
      );
    }
    if (request.body.length !== (action === "update" ? to - from + 1 : 0)) {
      return xmlError(400, "InvalidHeaderValue", "Content-Length does not fit the range.");
    }
    disk.content ??= { file: join(this.#folder, `${randomUUID()}.vhd`), bytes };
    const file = await open(disk.content.file, "a").then(async (made) => {
      await made.truncate(Math.max((await made.stat()).size, bytes));
      await made.close();
      return open(disk.content?.file ?? "", "r+");
    });
    try {
      const data = action === "update" ? request.body : Buffer.alloc(to - from + 1);
      await file.write(data, 0, data.length, from);
    } finally {
      await file.close();
    }
    if (action === "update") this.#note(disk.blob ?? "", from, to);
    return { status: 201, headers: blobHeaders({ "x-ms-blob-sequence-number": "0" }), body: "" };
  }

  #note(path: string, from: number, to: number): void {
    const ranges = this.#written.get(path) ?? [];
    const last = ranges.at(-1);
    if (last !== undefined && last[1] + 1 === from) last[1] = to;
    else ranges.push([from, to]);
    this.#written.set(path, ranges);
  }

  #pageList(disk: Disk): WireReply {
    const ranges = [...(this.#written.get(disk.blob ?? "") ?? [])].sort((a, b) => a[0] - b[0]);
    const list = ranges.map(([from, to]) => `<PageRange><Start>${from}</Start><End>${to}</End></PageRange>`).join("");
    return {
      status: 200,
      headers: blobHeaders({
        "content-type": "application/xml",
        "x-ms-blob-content-length": String(disk.uploadBytes ?? 0),
      }),
      body: `<?xml version="1.0" encoding="utf-8"?><PageList>${list}</PageList>`,
    };
  }

  async #read(disk: Disk, request: WireRequest): Promise<WireReply> {
    const size = disk.content?.bytes ?? disk.uploadBytes ?? disk.sizeGiB * 2 ** 30 + PAGE;
    const headers = {
      "x-ms-blob-type": "PageBlob",
      "accept-ranges": "bytes",
      "content-type": "application/octet-stream",
    };
    if (request.method === "HEAD") {
      return { status: 200, headers: blobHeaders({ ...headers, "content-length": String(size) }), body: "" };
    }
    const range = parseRange(header(request, "x-ms-range") ?? header(request, "range"));
    if (range === undefined || range[1] - range[0] >= 64 << 20) {
      return xmlError(413, "RequestBodyTooLarge", "This endpoint gives out ranges of at most 64 MiB.");
    }
    const [from, to] = [range[0], Math.min(range[1], size - 1)];
    if (from > to)
      return xmlError(416, "InvalidRange", "The range specified is invalid for the current size of the resource.");
    const data = Buffer.alloc(to - from + 1);
    if (disk.content !== undefined) {
      const file = await open(disk.content.file, "r");
      await file.read(data, 0, data.length, from).finally(() => file.close());
    }
    return {
      status: 206,
      headers: blobHeaders({ ...headers, "content-range": `bytes ${from}-${to}/${size}` }),
      body: data,
    };
  }

  async #console(vm: VirtualMachine, path: string, request: WireRequest): Promise<WireReply> {
    const text = path.endsWith(".serialconsole.log") ? ((await this.#cloud.host?.console?.(vm.id)) ?? vm.console) : "";
    if (text === "") return xmlError(404, "BlobNotFound", "The specified blob does not exist.");
    const data = Buffer.from(text);
    const type = { "content-type": "text/plain", "x-ms-blob-type": "AppendBlob", "accept-ranges": "bytes" };
    if (request.method === "HEAD") {
      return { status: 200, headers: blobHeaders({ ...type, "content-length": String(data.length) }), body: "" };
    }
    const range = parseRange(header(request, "x-ms-range") ?? header(request, "range"), data.length);
    if (range === undefined) return { status: 200, headers: blobHeaders(type), body: data };
    if (range[0] >= data.length) return xmlError(416, "InvalidRange", "The range specified is invalid.");
    const part = data.subarray(range[0], range[1] + 1);
    const shown = `bytes ${range[0]}-${range[0] + part.length - 1}/${data.length}`;
    return { status: 206, headers: blobHeaders({ ...type, "content-range": shown }), body: part };
  }
}

function header(request: WireRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** `bytes=0-511`, `bytes=512-`. @returns first and last byte */
function parseRange(text: string | undefined, size = Number.MAX_SAFE_INTEGER): [number, number] | undefined {
  const found = /^bytes=(\d+)-(\d*)$/.exec(text ?? "");
  if (found === null) return undefined;
  return [Number(found[1]), found[2] === "" ? size - 1 : Number(found[2])];
}

function blobHeaders(more: Readonly<Record<string, string>>): Record<string, string> {
  return {
    ...{ "x-ms-version": "2018-03-28", "x-ms-request-id": randomUUID(), etag: `"0x${randomUUID().slice(0, 8)}"` },
    ...{ "last-modified": new Date().toUTCString() },
    ...more,
  };
}

function xmlError(status: number, code: string, message: string): WireReply {
  return {
    status,
    headers: blobHeaders({ "content-type": "application/xml", "x-ms-error-code": code }),
    body: `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>${message.replaceAll("<", "&lt;")}</Message></Error>`,
  };
}
