// Stands for the module of that name, which stays as it is.

export * from "released/git-workspace-sync";
