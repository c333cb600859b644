/** What a VM has, or is to have; 0 = no matter. */
export interface SizeRequest {
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly gpus: number;
}

/** Whether a size is large enough. A GPU size for a pod that wants none would be the dearest way to give it two vCPUs. */
export function isAtLeast(size: SizeRequest, wanted: SizeRequest): boolean {
  const gpusFit = wanted.gpus === 0 ? size.gpus === 0 : size.gpus >= wanted.gpus;
  return gpusFit && size.vcpus >= wanted.vcpus && size.memoryMiB >= wanted.memoryMiB;
}

/** Smallest first, which is also cheapest first as clouds price their sizes; equal ones by name. */
export function bySize(a: SizeRequest & { readonly name: string }, b: SizeRequest & { readonly name: string }): number {
  return a.gpus - b.gpus || a.memoryMiB - b.memoryMiB || a.vcpus - b.vcpus || (a.name < b.name ? -1 : 1);
}
