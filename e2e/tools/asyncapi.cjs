// Reads an AsyncAPI document from standard input; says what is wrong with it, if anything is.

const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

// 0 is an error and 1 a warning. Of the rest, that there is a newer version of AsyncAPI is the only hint
// that there is, and not one to follow while generators know 3.0 best.
const WARNING = 1;

new Parser().parse(readFileSync(0, "utf8")).then(({ document, diagnostics }) => {
  const wrong = diagnostics.filter(({ severity }) => severity <= WARNING);
  for (const { code, message, path } of wrong) {
    console.error(`${path.join("/")}: ${message} (${code})`);
  }
  process.exitCode = document && wrong.length === 0 ? 0 : 1;
});
