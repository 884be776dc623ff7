// Types the pages' operations from the SDL. Whatever the SDL does not have, there or in GraphiQL's tabs, ends the build here.
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";

import { codegen } from "@graphql-codegen/core";
import * as typedDocumentNode from "@graphql-codegen/typed-document-node";
import * as operations from "@graphql-codegen/typescript-operations";
import { buildASTSchema, parse, validate } from "graphql";

const SDL = new URL("../../schema/schema.graphql", import.meta.url);
const OPERATIONS = new URL("shared/operations.graphql", import.meta.url);
const OUTPUT = new URL("shared/generated/operations.ts", import.meta.url);
const TABS = new URL("explorer/tabs/", import.meta.url);

const read = async (address) => parse(await readFile(address, "utf8"));

const sdl = await read(SDL);
const code = await codegen({
  filename: OUTPUT.pathname,
  schema: sdl,
  documents: [{ location: OPERATIONS.pathname, document: await read(OPERATIONS) }],
  config: {
    documentMode: "string",
    useTypeImports: true,
    enumType: "string-literal",
    skipTypename: true,
    scalars: { DateTime: "string", ID: "string" },
  },
  plugins: [{ typescriptOperations: {} }, { typedDocumentNode: {} }],
  pluginMap: { typescriptOperations: operations, typedDocumentNode },
});
await mkdir(new URL(".", OUTPUT), { recursive: true });
await writeFile(OUTPUT, code);

const schema = buildASTSchema(sdl);
for (const name of await readdir(TABS)) {
  const problems = validate(schema, await read(new URL(name, TABS)));
  if (problems.length > 0) {
    throw new Error(`${name}: ${problems.join("\n")}`);
  }
}
