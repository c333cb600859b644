import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { fittingTypes, type SizeRequest, type TypeSize } from "./instance-types.ts";

function type(name: string, vcpus: number, memoryMiB: number, change: Partial<TypeSize> = {}): TypeSize {
  return { ...{ name, vcpus, memoryMiB, gpus: 0, archs: ["x86_64"], sevSnp: true, bareMetal: false }, ...change };
}
const TYPES = [
  type("m6a.large", 2, 8192),
  type("m6a.xlarge", 4, 16_384),
  type("c6a.large", 2, 4096),
  type("r6a.large", 2, 16_384),
  type("m7i.large", 2, 8192, { sevSnp: false }),
  type("m6g.large", 2, 8192, { sevSnp: false, archs: ["arm64"] }),
  type("g5.xlarge", 4, 16_384, { gpus: 1, sevSnp: false }),
  type("g5.12xlarge", 48, 196_608, { gpus: 4, sevSnp: false }),
  type("m6a.metal", 2, 4096, { bareMetal: true }),
];
const SNP = { instanceType: "m6a.large", arch: "x86_64", tee: "sev-snp" } as const;
const PLAIN = { ...SNP, tee: "none" } as const;

function names(request: Partial<SizeRequest>, config: Parameters<typeof fittingTypes>[2] = SNP): string[] {
  return fittingTypes(TYPES, { vcpus: 0, memoryMiB: 0, gpus: 0, ...request }, config).map((t) => t.name);
}

describe("fittingTypes", () => {
  it("takes the smallest that is large enough first, and larger ones after it", () => {
    assert.deepEqual(names({ vcpus: 2, memoryMiB: 3000 }), ["c6a.large", "m6a.large", "r6a.large", "m6a.xlarge"]);
    assert.deepEqual(names({ vcpus: 3, memoryMiB: 3000 }), ["m6a.xlarge"]);
  });

  it("honours a request for only vCPUs or only memory", () => {
    assert.equal(names({ vcpus: 4 })[0], "m6a.xlarge");
    assert.equal(names({ memoryMiB: 9000 })[0], "r6a.large");
  });

  it("takes the configured type when nothing is asked for, then larger ones", () => {
    assert.deepEqual(names({}), ["m6a.large", "r6a.large", "m6a.xlarge"]);
  });

  it("takes exactly the type that is named, or says why not", () => {
    assert.deepEqual(names({ instanceType: "r6a.large", vcpus: 64 }), ["r6a.large"]);
    const refused = (instanceType: string, message: RegExp): void =>
      assert.throws(() => names({ instanceType }), { code: "invalid_argument", message });
    refused("x1.large", /"x1\.large".+m6a\.large, m6a\.xlarge/);
    refused("m7i.large", /m7i\.large.+no SEV-SNP/);
    refused("m6g.large", /m6g\.large.+arm64/);
  });

  it("gives GPUs to pods that ask for them, and to no other", () => {
    assert.deepEqual(names({ gpus: 1 }, PLAIN), ["g5.xlarge", "g5.12xlarge"]);
    assert.deepEqual(names({ gpus: 2, vcpus: 8 }, PLAIN), ["g5.12xlarge"]);
    assert.ok(!names({ vcpus: 4 }, PLAIN).includes("g5.xlarge"));
    assert.throws(() => names({ gpus: 8 }, PLAIN), {
      message: /8 GPUs.+g5\.12xlarge \(48 vCPUs, 196608 MiB, 4 GPUs\)/,
    });
  });

  it("takes arm64 types for arm64 images only", () => {
    assert.deepEqual(names({ vcpus: 1 }, { ...PLAIN, arch: "arm64" }), ["m6g.large"]);
  });

  it("says what was asked for and what there is when nothing fits", () => {
    assert.throws(() => names({ vcpus: 16, memoryMiB: 1024 }), {
      code: "invalid_argument",
      message: /SEV-SNP has 16 vCPUs and 1024 MiB of memory and no GPU: .+m6a\.xlarge \(4 vCPUs, 16384 MiB, 0 GPUs\)/,
    });
  });

  it("finds a type whenever there is one, in any list", () => {
    const size = fc.record({ vcpus: fc.nat(16), memoryMiB: fc.nat(16), gpus: fc.nat(2) });
    fc.assert(
      fc.property(fc.array(size, { minLength: 1, maxLength: 8 }), size, (sizes, wanted) => {
        fc.pre(wanted.vcpus + wanted.memoryMiB + wanted.gpus > 0);
        const types = sizes.map((s, i) => type(`t.${i}`, s.vcpus, s.memoryMiB, { gpus: s.gpus }));
        const fits = types.filter(
          (t) =>
            t.vcpus >= wanted.vcpus &&
            t.memoryMiB >= wanted.memoryMiB &&
            (wanted.gpus === 0 ? t.gpus === 0 : t.gpus >= wanted.gpus),
        );
        let found: string[] = [];
        try {
          found = fittingTypes(types, wanted, SNP).map((t) => t.name);
        } catch {
          // Nothing fits, which is compared below.
        }
        assert.deepEqual(found.toSorted(), fits.map((t) => t.name).toSorted());
      }),
    );
  });

  it("finds what the incumbent's binary search misses", () => {
    // Wire contract W-17: (4 GiB, 8 vCPU), (8, 2), (16, 4), asked for 8 vCPUs and 4 GiB.
    const types = [type("a", 8, 4096), type("b", 2, 8192), type("c", 4, 16_384)];
    assert.equal(fittingTypes(types, { vcpus: 8, memoryMiB: 4096, gpus: 0 }, SNP)[0].name, "a");
  });
});
