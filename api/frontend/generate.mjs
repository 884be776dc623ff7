// Types the studio's operations from the SDL; whatever the SDL does not have ends the build here.
import { mkdir, readFile, writeFile } from "node:fs/promises";

import { codegen } from "@graphql-codegen/core";
import * as typedDocumentNode from "@graphql-codegen/typed-document-node";
import * as operations from "@graphql-codegen/typescript-operations";
import { parse } from "graphql";

const SDL = new URL("../../schema/schema.graphql", import.meta.url);
const OPERATIONS = new URL("studio/operations.graphql", import.meta.url);
const OUTPUT = new URL("studio/generated/operations.ts", import.meta.url);

const read = async (address) => parse(await readFile(address, "utf8"));

const code = await codegen({
  filename: OUTPUT.pathname,
  schema: await read(SDL),
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
