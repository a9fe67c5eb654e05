// Stands for the module of that name, which stays as it is.

export { resolvePaperclipInstanceRootForAdapter } from "released/server-utils";
