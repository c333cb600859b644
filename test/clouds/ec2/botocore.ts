import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { type RestDescription, RestModel } from "./ebs/rest-model.ts";
import { Ec2Model, type ServiceDescription } from "./model.ts";

/** Pinned, so that a new release cannot change what a test run means. Brings its botocore. */
const BOTO3 = "1.44.5";
const DESCRIPTION = join("botocore", "data", "ec2", "2016-11-15", "service-2.json.gz");
const EBS_DESCRIPTION = join("botocore", "data", "ebs", "2019-11-02", "service-2.json.gz");

/** An installation of boto3, outside of Python's own directories. */
export interface Boto {
  /** For PYTHONPATH. */
  readonly path: string;
  readonly model: Ec2Model;
  /** Of the EBS direct APIs. */
  readonly ebsModel: RestModel;
}

/** Why there is none; tests say it in their skip line. */
export interface NoBoto {
  readonly missing: string;
}

/**
 * boto3 with its description of EC2, from PyPI into the repository's cache directory (which is not committed). Installed
 * once; later runs need no network.
 */
export async function installBoto(): Promise<Boto | NoBoto> {
  const cache = join(import.meta.dirname, "..", "..", "..", ".cache", "pypi");
  const path = join(cache, `boto3-${BOTO3}`);
  const there = await load(path);
  if (there !== undefined) return there;
  await mkdir(cache, { recursive: true });
  const temporary = await mkdtemp(join(cache, "installing-"));
  const target = join(temporary, "site");
  try {
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", target];
    await promisify(execFile)("python3", [...pip, `boto3==${BOTO3}`], { timeout: 120_000 });
    await rename(target, path).catch((e: NodeJS.ErrnoException) => {
      if (!["ENOTEMPTY", "EEXIST"].includes(e.code ?? "")) throw e; // another test file was faster
    });
  } catch (e) {
    const lines = (e instanceof Error ? e.message : String(e)).trim().split("\n");
    return { missing: `boto3 ${BOTO3} cannot be installed with pip: ${lines.at(-1)}` };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return (await load(path)) ?? { missing: `${join(dirname(path), DESCRIPTION)} is not in boto3 ${BOTO3}` };
}

async function load(path: string): Promise<Boto | undefined> {
  const [ec2, ebs] = [await readPacked(join(path, DESCRIPTION)), await readPacked(join(path, EBS_DESCRIPTION))];
  if (ec2 === undefined || ebs === undefined) return undefined;
  return {
    path,
    model: new Ec2Model(ec2 as ServiceDescription),
    ebsModel: new RestModel(ebs as RestDescription),
  };
}

async function readPacked(path: string): Promise<unknown> {
  const packed = await readFile(path).catch((e: NodeJS.ErrnoException) => {
    if (e.code === "ENOENT") return undefined;
    throw e;
  });
  return packed === undefined ? undefined : JSON.parse(gunzipSync(packed).toString());
}
