import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { awsUserData, azureUserData } from "./metadata-service.ts";

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

let server: Server;
let host: string;
let handler: Handler;
let asked: string[];

beforeEach(async () => {
  asked = [];
  server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

function answer(response: ServerResponse, status: number, body: string | Buffer = ""): void {
  response.statusCode = status;
  response.end(body);
}

function options(patienceMs = 10_000): { host: string; patienceMs: number; signal: AbortSignal } {
  return { host, patienceMs, signal: AbortSignal.timeout(20_000) };
}

/** EC2's service, which gives nothing without a token of its own. */
function ec2(userData: (response: ServerResponse) => void): Handler {
  return (request, response) => {
    if (request.url === "/latest/api/token") {
      const ttl = Number(request.headers["x-aws-ec2-metadata-token-ttl-seconds"]);
      if (request.method !== "PUT" || !(ttl >= 1 && ttl <= 21_600)) return answer(response, 400);
      return answer(response, 200, "a-token==");
    }
    if (request.headers["x-aws-ec2-metadata-token"] !== "a-token==") return answer(response, 401);
    if (request.url !== "/latest/user-data") return answer(response, 404);
    userData(response);
  };
}

describe("user-data of an EC2 instance", () => {
  it("is read with a token", async () => {
    handler = ec2((response) => answer(response, 200, "#cloud-config\n"));
    assert.equal(await awsUserData(options()), "#cloud-config\n");
    assert.deepEqual(asked, ["PUT /latest/api/token", "GET /latest/user-data"]);
  });

  it("is not asked for without one", async () => {
    handler = (request, response) => {
      if (request.method === "PUT") return answer(response, 500);
      answer(response, 200, "given away");
    };
    await assert.rejects(awsUserData(options(300)), { code: "unavailable", message: /no token, status 500/ });
    assert.ok(asked.every((line) => line.startsWith("PUT")));
  });

  it("is asked for with another token when the first one is refused", async () => {
    let refused = false;
    const working = ec2((response) => answer(response, 200, "x"));
    handler = (request, response) => {
      if (request.method !== "GET" || refused) return working(request, response);
      refused = true;
      answer(response, 401);
    };
    assert.equal(await awsUserData(options()), "x");
    assert.equal(asked.filter((line) => line.startsWith("PUT")).length, 2);
  });

  it("is waited for while the service has trouble", async () => {
    let failures = 3;
    handler = ec2((response) => {
      failures -= 1;
      answer(response, failures >= 0 ? 503 : 200, "x");
    });
    assert.equal(await awsUserData(options()), "x");
  });

  it("is waited for while nothing answers there", async () => {
    handler = ec2((response) => answer(response, 200, "x"));
    const { port } = server.address() as AddressInfo;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    const reading = awsUserData(options());
    await new Promise((resolve) => setTimeout(resolve, 200));
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    assert.equal(await reading, "x");
  });

  it("is given up at once when there is none", async () => {
    handler = ec2((response) => answer(response, 404));
    await assert.rejects(awsUserData(options()), { code: "not_found", message: /started without user-data/ });
    assert.equal(asked.length, 2);
  });

  it("is given up at once when the service is switched off", async () => {
    handler = (_, response) => answer(response, 403);
    await assert.rejects(awsUserData(options()), { code: "not_found", message: /switched off for this instance/ });
    assert.equal(asked.length, 1);
  });

  it("is not waited for any longer when somebody else was faster", async () => {
    handler = () => undefined; // never answers
    const controller = new AbortController();
    const reading = awsUserData({ host, signal: controller.signal });
    setTimeout(() => controller.abort(), 100);
    await assert.rejects(reading, { name: "AbortError" });
  });

  it("may be compressed", async () => {
    handler = ec2((response) => answer(response, 200, gzipSync("#cloud-config\n")));
    assert.equal(await awsUserData(options()), "#cloud-config\n");
  });

  it("is refused when it is a bomb, damaged, or longer than any cloud allows", async () => {
    const refused = async (body: Buffer, expected: object): Promise<void> => {
      handler = ec2((response) => answer(response, 200, body));
      await assert.rejects(awsUserData(options(500)), expected);
    };
    await refused(gzipSync(Buffer.alloc(10 << 20)), { code: "invalid_argument", message: /cannot be unpacked/ });
    await refused(gzipSync("x").subarray(0, 15), { code: "invalid_argument" });
    await refused(Buffer.alloc(200 * 1024, 65), { code: "unavailable", message: /longer than/ });
  });
});

describe("user-data of an Azure VM", () => {
  const azure =
    (status: number, body = ""): Handler =>
    (request, response) => {
      if (request.headers.metadata !== "true") return answer(response, 400);
      const expected = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text";
      answer(response, request.url === expected ? status : 404, body);
    };

  it("is read with the header that the service insists on, and decoded", async () => {
    handler = azure(200, Buffer.from("#cloud-config\n").toString("base64"));
    assert.equal(await azureUserData(options()), "#cloud-config\n");
  });

  it("is waited for while the service does not know the VM yet", async () => {
    let early = 2;
    const working = azure(200, Buffer.from("x").toString("base64"));
    handler = (request, response) => {
      early -= 1;
      if (early >= 0) return answer(response, early === 1 ? 404 : 410);
      working(request, response);
    };
    assert.equal(await azureUserData(options()), "x");
  });

  it("is given up at once when there is none, or it is not base64", async () => {
    handler = azure(200, "");
    await assert.rejects(azureUserData(options()), { code: "not_found", message: /without userData/ });
    handler = azure(200, "<html>");
    await assert.rejects(azureUserData(options()), { code: "not_found", message: /not base64/ });
  });
});
