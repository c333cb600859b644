import { Command, CommanderError, Option } from "commander";
import { Fault } from "../base/fault.ts";
import { VERSION } from "../base/version.ts";
import type { CheckOptions } from "./check.ts";
import { addImageCommands } from "./image-commands.ts";

/** Ends with the process's first SIGTERM or SIGINT; a second one ends the process at once. */
function untilSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    process.once(name, () => {
      controller.abort(new Fault("cancelled", `${name} received`));
      process.once(name, () => process.exit(128 + (name === "SIGINT" ? 2 : 15)));
    });
  }
  return controller.signal;
}

const program = new Command("kata-remote")
  .description("Runs each pod in its own virtual machine: containerd shim, node daemon and cloud API adaptor.")
  .version(VERSION)
  .exitOverride()
  .enablePositionalOptions()
  .showHelpAfterError("(kata-remote --help lists the commands)");

program
  .command("up")
  .description("node daemon and adaptor in one process: this machine, provider local, no services needed")
  .option("--node-config <file>", "TOML, instead of /etc/kata-remote/node.toml")
  .option("--adaptor-config <file>", "TOML, instead of /etc/kata-remote/adaptor.toml")
  .option("--door <address...>", "containerd addresses to serve from the start")
  .action(async (options: { nodeConfig?: string; adaptorConfig?: string; door?: string[] }) => {
    const { runUp } = await import("./up.ts");
    await runUp(
      {
        ...(options.nodeConfig === undefined ? {} : { nodeConfigPath: options.nodeConfig }),
        ...(options.adaptorConfig === undefined ? {} : { adaptorConfigPath: options.adaptorConfig }),
        doors: options.door ?? [],
      },
      { signal: untilSignal() },
    );
  });

program
  .command("node")
  .description("node daemon: serves containerd's Task calls for every pod of this machine (the launcher starts it)")
  .option("--config <file>", "TOML, instead of /etc/kata-remote/node.toml")
  .option("--door <address...>", "containerd addresses to serve from the start")
  .option("--stock-env", "also serves stock shims, as the stock adaptor's environment variables say")
  .option("--drain", "end every pod of this node, its daemon and its relay, and wait for that")
  .action(async (options: { config?: string; door?: string[]; stockEnv?: boolean; drain?: boolean }) => {
    const { drainNode, runNode } = await import("./node.ts");
    if (options.drain === true) return drainNode({ signal: untilSignal() });
    const layers = options.stockEnv === true ? { over: (await import("./stock.ts")).readSettings([]).node } : {};
    const configPath = options.config === undefined ? {} : { configPath: options.config };
    await runNode({ ...configPath, doors: options.door ?? [], layers }, { signal: untilSignal() });
  });

program
  .command("relay")
  .description("holds the connections of this node's pods while its daemon restarts (the daemon starts it)")
  .argument("<directory>", "in the run directory, made by the daemon")
  .action(async () => {
    await import("./relay.ts");
  });

program
  .command("stock")
  .description("takes the stock adaptor's place: its arguments and its environment, adaptor and node daemon in one")
  .argument("[provider and flags...]")
  .allowUnknownOption()
  .passThroughOptions()
  .action(async (argv: string[]) => {
    const { runStock } = await import("./stock.ts");
    await runStock(argv, { signal: untilSignal() });
  });

program
  .command("stock-config")
  .description("prints configuration-remote.toml for a stock Kata shim")
  .addOption(new Option("--shim <which>", "whose").choices(["go", "rust"]).default("go"))
  .option("--socket <path>", "stock.socket of the node's configuration", "/run/peerpod/hypervisor.sock")
  .action(async (options: { shim: "go" | "rust"; socket: string }) => {
    const { stockKataConfig } = await import("./stock-config.ts");
    process.stdout.write(stockKataConfig(options));
  });

const adaptor = program
  .command("adaptor")
  .description("cloud API adaptor: makes and destroys pod VMs, durably queued")
  .option("--config <file>", "TOML, instead of /etc/kata-remote/adaptor.toml")
  .action(async (options: { config?: string }) => {
    const { runAdaptor } = await import("./adaptor.ts");
    await runAdaptor(options.config === undefined ? {} : { configPath: options.config }, { signal: untilSignal() });
  });

adaptor
  .command("problems")
  .description("what needs attention: a recovery, silent nodes, stuck deletions")
  .option("--config <file>", "TOML of the adaptor, instead of /etc/kata-remote/adaptor.toml")
  .action(async (options: { config?: string }) => {
    const { showProblems } = await import("./adaptor-admin.ts");
    await showProblems({ ...adaptor.opts(), ...options }, { signal: untilSignal() });
  });

adaptor
  .command("confirm-recovery")
  .description("ends a recovery: instances that no record and no node claims may be deleted from now on")
  .argument("<epoch>", "recovery.epoch of `adaptor problems`")
  .option("--config <file>", "TOML of the adaptor, instead of /etc/kata-remote/adaptor.toml")
  .action(async (epoch: string, options: { config?: string }) => {
    const { confirmRecovery } = await import("./adaptor-admin.ts");
    await confirmRecovery(epoch, { ...adaptor.opts(), ...options }, { signal: untilSignal() });
  });

adaptor
  .command("forget-node")
  .description("the node does not come back: its sandboxes are stopped, and nobody waits for its report")
  .argument("<node>", "its id: GET /v1/nodes")
  .option("--config <file>", "TOML of the adaptor, instead of /etc/kata-remote/adaptor.toml")
  .action(async (node: string, options: { config?: string }) => {
    const { forgetNode } = await import("./adaptor-admin.ts");
    await forgetNode(node, { ...adaptor.opts(), ...options }, { signal: untilSignal() });
  });

adaptor
  .command("openapi")
  .description("OpenAPI document of the adaptor's REST door")
  .action(async () => {
    const { printOpenApi } = await import("./adaptor-admin.ts");
    printOpenApi();
  });

adaptor
  .command("token")
  .description("writes a file (0600) with which one node of another machine may join")
  .option("--node <id>", "only for this node id")
  .option("--hours <n>", "how long it may be used", "24")
  .option("--out <file>", "where it goes", "join.json")
  .option("--config <file>", "TOML of the adaptor, instead of /etc/kata-remote/adaptor.toml")
  .action(async (options: { node?: string; hours: string; out: string; config?: string }) => {
    const { makeToken } = await import("./adaptor-admin.ts");
    await makeToken({ ...adaptor.opts(), ...options }, { signal: untilSignal() });
  });

program
  .command("guest")
  .description("what runs inside the pod VM; does nothing useful elsewhere")
  .action(async () => {
    await import("./guest.ts");
  });

addImageCommands(program, untilSignal);

program
  .command("ps")
  .description("sandboxes of this node: state, VM, containers, time spent in each stage of the start")
  .option("--json", "for scripts")
  .action(async (options: { json?: boolean }) => {
    const { ps } = await import("./inspect.ts");
    await ps(options, { signal: untilSignal() });
  });

program
  .command("logs")
  .description("what the daemons wrote about one sandbox (id, container id or pod name; a prefix will do)")
  .argument("<id>")
  .action(async (id: string) => {
    const { logs } = await import("./inspect.ts");
    await logs(id, { signal: untilSignal() });
  });

program
  .command("console")
  .description("serial console of a sandbox's VM")
  .argument("<id>")
  .option("--bytes <n>", "newest bytes", "65536")
  .action(async (id: string, options: { bytes: string }) => {
    const { showConsole } = await import("./inspect.ts");
    await showConsole(id, Number(options.bytes), { signal: untilSignal() });
  });

program
  .command("check")
  .description("what works on this machine, or in a cloud's account, and what does not, with remedies")
  .argument("[provider]", "only this provider's account: aws, azure, local")
  .option("--json", "for scripts")
  .option("--node-config <file>", "TOML, instead of /etc/kata-remote/node.toml")
  .option("--adaptor-config <file>", "TOML, instead of /etc/kata-remote/adaptor.toml")
  .action(async (provider: string | undefined, options: Omit<CheckOptions, "provider">) => {
    const { check } = await import("./check.ts");
    process.exitCode = await check({ ...options, provider }, { signal: untilSignal() });
  });

program
  .command("open-door", { hidden: true })
  .description("asks the living node daemon to serve one more containerd (used by the launcher)")
  .argument("<address>")
  .action(async (address: string) => {
    const { openDoor } = await import("./inspect.ts");
    await openDoor(address, { signal: untilSignal() });
  });

/** Go's single-dash flags are not this parser's: the launcher's clean-up goes around it. */
async function main(argv: readonly string[]): Promise<void> {
  if (argv[2] !== "shim-delete") {
    await program.parseAsync(argv);
    return;
  }
  const { runShimDelete } = await import("./shim-delete.ts");
  process.exitCode = await runShimDelete(argv.slice(3));
}

try {
  await main(process.argv);
} catch (e) {
  if (e instanceof CommanderError) process.exitCode = e.exitCode;
  else {
    const fault = Fault.from(e);
    // A signal is how these processes are meant to end.
    if (fault.code !== "cancelled") {
      process.stderr.write(`kata-remote: ${fault.fullMessage}\n`);
      process.exitCode = 1;
    }
  }
}

// With nothing left to do, Node takes its environment down, and may turn for ever in that (24.21,
// Environment::CleanupHandles): a daemon that does so keeps its lock.
process.once("beforeExit", () => process.exit());
