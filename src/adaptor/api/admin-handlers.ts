import { Fault } from "../../base/fault.ts";
import type { AdminDefinition } from "../../gen/kataremote/podvm/v1/admin.ts";
import type { Handlers } from "../../grpc/index.ts";
import type { JoinTokens, PodVmService, Problems, Recovery } from "../podvm/index.ts";
import { checkNodeId } from "./read-report.ts";

export interface AdminDeps {
  readonly service: PodVmService;
  readonly problems: Problems;
  readonly recovery: Recovery;
  readonly tokens: JoinTokens;
  readonly caPem: string;
  /** host:port of the doors for nodes; undefined when the adaptor listens on its socket only. */
  readonly network: { readonly joinAddress: string; readonly address: string } | undefined;
}

const MAX_TTL_S = 30n * 86_400n;
const DEFAULT_TTL_S = 86_400n;

/** What an operator may do. Whoever can open the socket is the adaptor's own user. */
export function adminHandlers(deps: AdminDeps): Handlers<typeof AdminDefinition> {
  const { service, problems, recovery, tokens, caPem, network } = deps;
  return {
    problems: async () => ({ json: JSON.stringify(await problems.look()) }),
    async confirmRecovery({ epoch }) {
      await recovery.confirm(epoch);
      return {};
    },
    async forgetNode({ nodeId }) {
      const reason = "an operator said that its node does not come back";
      return { stoppingSandboxIds: [...(await service.forgetNode(checkNodeId(nodeId), reason))] };
    },
    async createJoinToken({ nodeId, ttlSeconds }) {
      if (ttlSeconds > MAX_TTL_S) {
        throw new Fault("invalid_argument", `a join token may last 30 days at most, not ${ttlSeconds} s`);
      }
      if (network === undefined) {
        const message =
          "nodes cannot join over the network: set grpc.listen (with joinPort) in the adaptor's configuration";
        throw new Fault("failed_precondition", message);
      }
      const ttlMs = Number(ttlSeconds === 0n ? DEFAULT_TTL_S : ttlSeconds) * 1000;
      const made = await tokens.create({ ttlMs, ...(nodeId === "" ? {} : { nodeId: checkNodeId(nodeId) }) });
      return { ...made, caPem, ...network };
    },
  };
}
