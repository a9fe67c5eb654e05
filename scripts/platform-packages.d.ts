// The packages that hold the addon, one for each platform: none is there while the types are checked.
declare module "@paperclipai/sandbox-managed-runtime-*" {
  const binding: import("../binding.js").Binding;
  export = binding;
}
