import { describe, expect, it } from "vitest";
import { findExamples } from "./examples.mjs";

describe("finding examples", () => {
  it("takes js and ts blocks with their line and code, and leaves other languages", () => {
    const markdown =
      "# Title\n\n```js\nlet a;\nlet b;\n```\n\n```sh\nnpm test\n```\n\n```ts\nlet c: number;\n```\n";

    expect(findExamples(markdown)).toEqual([
      { line: 3, language: "js", code: "let a;\nlet b;\n", output: undefined },
      { line: 12, language: "ts", code: "let c: number;\n", output: undefined },
    ]);
  });

  it("takes a text block that follows for what the example prints", () => {
    const markdown = "```js\nconsole.log(1);\n```\n\n```text\n1\n```\n\nProse.\n\n```text\n2\n```\n";

    expect(findExamples(markdown)).toEqual([
      { line: 1, language: "js", code: "console.log(1);\n", output: "1\n" },
    ]);
  });
});
