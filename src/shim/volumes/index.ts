export { cloudVolumes } from "./cloud-volumes.ts";
export { ContainerVolumes, type FollowedVolume, VolumeRecord } from "./container-volumes.ts";
export { type CopyLimits, copyTree, measureCopy } from "./copy-tree.ts";
export { type NodeFiles, nodeFiles } from "./node-files.ts";
export { syncVolume } from "./sync-volume.ts";
export { VolumeWatch } from "./volume-watch.ts";
