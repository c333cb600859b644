import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { addSections, unifiedKernel } from "./unified-kernel.ts";

const SECTION_ALIGNMENT = 0x1000;
const FILE_ALIGNMENT = 0x200;

/** A PE32+ file with one section and room for the headers of more. */
function stub(options: { readonly headersSize?: number } = {}): Buffer {
  const file = Buffer.alloc(0x600);
  file.write("MZ");
  file.writeUInt32LE(0x80, 60);
  file.write("PE\0\0", 0x80, "latin1");
  file.writeUInt16LE(0x8664, 0x84);
  file.writeUInt16LE(1, 0x86); // sections
  file.writeUInt16LE(0xf0, 0x94); // size of the optional header
  const optional = 0x98;
  file.writeUInt16LE(0x20b, optional);
  file.writeUInt32LE(0x200, optional + 8);
  file.writeUInt32LE(SECTION_ALIGNMENT, optional + 32);
  file.writeUInt32LE(FILE_ALIGNMENT, optional + 36);
  file.writeUInt32LE(0x6000, optional + 56);
  file.writeUInt32LE(options.headersSize ?? 0x400, optional + 60);
  file.writeUInt32LE(0x1234, optional + 64);
  const header = optional + 0xf0;
  file.write(".text", header, "latin1");
  for (const [at, value] of [
    [8, 0x1234],
    [12, 0x4000],
    [16, 0x200],
    [20, 0x400],
  ] as const)
    file.writeUInt32LE(value, header + at);
  file.fill(0xcc, 0x400, 0x600);
  file.writeUInt32LE(0x600, 0x8c); // symbols, behind the section
  file.writeUInt32LE(3, 0x90);
  return Buffer.concat([file, Buffer.from("symbols")]);
}

interface Section {
  readonly name: string;
  readonly address: number;
  readonly data: Buffer;
}

function sections(pe: Buffer): Section[] {
  const at = pe.readUInt32LE(60);
  const table = at + 24 + pe.readUInt16LE(at + 20);
  return Array.from({ length: pe.readUInt16LE(at + 6) }, (_, i) => {
    const header = pe.subarray(table + i * 40, table + (i + 1) * 40);
    const [size, address, , offset] = [8, 12, 16, 20].map((field) => header.readUInt32LE(field));
    return {
      name: header.toString("latin1", 0, 8).replace(/\0+$/, ""),
      address: address ?? 0,
      data: pe.subarray(offset, (offset ?? 0) + (size ?? 0)),
    };
  });
}

describe("addSections", () => {
  const added = addSections(stub(), [
    { name: ".one", data: Buffer.from("first") },
    { name: ".two", data: Buffer.alloc(0x1001, 2) },
    { name: ".three", data: Buffer.from("last") },
  ]);

  it("puts them behind what is there, in the file and in memory", () => {
    const [text, ...rest] = sections(added);
    assert.equal(text?.name, ".text");
    assert.deepEqual(
      rest.map((s) => [s.name, s.address, s.data.length]),
      [
        [".one", 0x6000, 5],
        [".two", 0x7000, 0x1001],
        [".three", 0x9000, 4],
      ],
    );
    assert.deepEqual(
      rest.map((s) => s.data.subarray(0, 5).toString("latin1")),
      ["first", "\x02\x02\x02\x02\x02", "last"],
    );
    assert.ok(added.subarray(0x400, 0x600).equals(stub().subarray(0x400, 0x600)), "the stub's own code");
  });

  it("leaves out what stands behind the sections, for there would be a gap", () => {
    assert.equal(added.indexOf("symbols"), -1);
    assert.deepEqual([added.readUInt32LE(0x8c), added.readUInt32LE(0x90)], [0, 0]);
  });

  it("says how large the whole is", () => {
    assert.equal(added.readUInt32LE(0x98 + 56), 0xa000);
    assert.equal(added.length % FILE_ALIGNMENT, 0);
    assert.equal(added.readUInt32LE(0x98 + 8), 0x200 + 0x200 + 0x1200 + 0x200);
    assert.equal(added.readUInt32LE(0x98 + 64), 0, "the old checksum does not hold any more");
  });

  it("refuses a file without room for the headers, and what is no PE32+ file", () => {
    assert.throws(() => addSections(stub({ headersSize: 0x1b0 }), [{ name: ".x", data: Buffer.alloc(1) }]), {
      code: "invalid_argument",
      message: /no room/,
    });
    assert.throws(() => addSections(Buffer.from("MZ"), []), { code: "invalid_argument" });
    const old = stub();
    old.writeUInt16LE(0x10b, 0x98);
    assert.throws(() => addSections(old, []), { code: "invalid_argument" });
  });
});

describe("unifiedKernel", () => {
  it("has the sections that systemd's stub looks for", () => {
    const image = unifiedKernel(stub(), {
      kernel: Buffer.from("kernel"),
      initrd: Buffer.from("initrd"),
      cmdline: "quiet root=PARTLABEL=x",
      osRelease: "ID=x\n",
      kernelVersion: "6.1",
    });
    const found = new Map(sections(image).map((s) => [s.name, s.data.toString()]));
    assert.equal(found.get(".linux"), "kernel");
    assert.equal(found.get(".initrd"), "initrd");
    assert.equal(found.get(".cmdline"), "quiet root=PARTLABEL=x");
    assert.equal(found.get(".osrel"), "ID=x\n");
    assert.equal(found.get(".uname"), "6.1");
  });
});
