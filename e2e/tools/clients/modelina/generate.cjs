// Generates models in Python from an AsyncAPI document.

const { readFileSync } = require("node:fs");
const { PythonFileGenerator, PYTHON_PYDANTIC_PRESET } = require("@asyncapi/modelina");

const [, , document, folder] = process.argv;
const generator = new PythonFileGenerator({ presets: [PYTHON_PYDANTIC_PRESET] });
generator
  .generateToFiles(JSON.parse(readFileSync(document, "utf8")), folder, { packageName: folder })
  .then((models) => {
    const names = models.map(({ modelName }) => modelName).sort();
    const madeUp = names.filter((name) => name.startsWith("Anonymous"));
    if (madeUp.length > 0) {
      throw new Error(`schemas without a name: ${madeUp}`);
    }
  });
