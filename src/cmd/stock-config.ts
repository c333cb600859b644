import { POD_VM_ANNOTATIONS } from "../shim/index.ts";

export interface StockKataOptions {
  /** "go" or "rust": which shim reads it. */
  readonly shim: "go" | "rust";
  readonly socket: string;
}

/**
 * `configuration-remote.toml` for a stock shim: what its own template says, with our socket. Keys that the remote
 * backend does not read are left out.
 * Source: kata-shim-and-agent reference §4.3
 */
export function stockKataConfig({ shim, socket }: StockKataOptions): string {
  const rust = shim === "rust";
  // The Go template's list has gpu_model, by which default_gpu_model cannot be set; both names are allowed here.
  const enabled = [...POD_VM_ANNOTATIONS, "default_gpu_model"];
  const lines = [
    `# Kata's ${rust ? "Rust" : "Go"} shim with pod VMs made by kata-remote (kata-remote stock-config --shim ${shim}).`,
    "[hypervisor.remote]",
    `remote_hypervisor_socket = ${quote(socket)}`,
    "# Seconds for StartVM; kubelet's runtimeRequestTimeout (2 min) ends it earlier unless it is raised as well.",
    "remote_hypervisor_timeout = 600",
    `enable_annotations = [${enabled.map(quote).join(", ")}]`,
    ...(rust ? ["default_vcpus = 1", "default_memory = 2048", "default_maxvcpus = 0", 'kernel_params = ""'] : []),
    "default_bridges = 1",
    "memory_slots = 10",
    "enable_debug = false",
    'guest_hook_path = ""',
    "disable_selinux = false",
    "disable_guest_selinux = true",
    "",
    "[agent.kata]",
    "enable_debug = false",
    "enable_tracing = false",
    "debug_console_enabled = false",
    ...(rust
      ? ["dial_timeout_ms = 100", "reconnect_timeout_ms = 30000", "create_container_timeout = 60"]
      : ["dial_timeout = 30"]),
    "",
    "[runtime]",
    ...(rust ? ['name = "virt_container"', 'hypervisor_name = "remote"', 'agent_name = "kata"'] : []),
    "enable_debug = false",
    'internetworking_model = "none"',
    "disable_guest_seccomp = true",
    'guest_selinux_label = ""',
    "enable_tracing = false",
    'jaeger_endpoint = ""',
    'jaeger_user = ""',
    'jaeger_password = ""',
    `disable_new_netns = ${rust ? "false" : "true"}`,
    `sandbox_cgroup_only = ${rust ? "true" : "false"}`,
    "static_sandbox_resource_mgmt = true",
    'vfio_mode = "guest-kernel"',
    ...(rust ? [] : ["disable_guest_empty_dir = false"]),
    'emptydir_mode = "shared-fs"',
    "experimental = []",
    "enable_pprof = false",
    ...(rust ? [] : ["create_container_timeout = 60"]),
    'dan_conf = "/run/kata-containers/dans"',
    ...(rust ? [] : ['kubelet_root_dir = "/var/lib/kubelet"', 'pod_resource_api_sock = ""']),
    "",
  ];
  return lines.join("\n");
}

function quote(text: string): string {
  return JSON.stringify(text);
}
