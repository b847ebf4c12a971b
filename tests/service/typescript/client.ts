// A client of the service whose types come from its OpenAPI document alone; see test_typescript_client.py.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

type Request = components["schemas"]["RecommendRequest"];

const body: Request = {
  user_id: "3",
  n: 5,
  filter: { genre: { in: ["noir", "drama"] }, not: { year: { lt: 1951 } } },
  rules: [{ kind: "quota", column: "genre", most: 3 }],
};
// @ts-expect-error a number is wanted
const text: Request = { n: "five" };
// @ts-expect-error a rule says its kind
const kindless: Request = { rules: [{ column: "genre", most: 3 }] };

const client = createClient<paths>({ baseUrl: process.argv[2] });
const recommended = await client.POST("/v1/recommend", { body });
const wrong = await client.POST("/v1/recommend", { body: { n: 0 } });
const missing = await client.GET("/v1/items/{item_id}", { params: { path: { item_id: "no such item" } } });

const items: { item_id: string; score: number }[] = recommended.data?.items ?? [];
const problems: (string | undefined)[] = [wrong.error?.type, missing.error?.type];
console.log(JSON.stringify({ items, problems, unused: [text, kindless].length }));
