// Walks through the API with openapi-fetch and the types that openapi-typescript generates.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths } from "./schema.d.ts";

const client = createClient<paths>({ baseUrl: process.argv[2] });

const created = await client.POST("/api/tasks", { body: { title: "one", description: "all" } });
assert(created.data);
const { id, title, status, description, version } = created.data;
assert.deepEqual([title, status, description, version], ["one", "todo", "all", 1]);
const params = { path: { id } };

const read = await client.GET("/api/tasks/{id}", { params });
assert.deepEqual(read.data, created.data);
const etag = read.response.headers.get("ETag")!;
const unchanged = await client.GET("/api/tasks/{id}", {
  params: { ...params, header: { "If-None-Match": etag } },
});
assert.equal(unchanged.response.status, 304);

const more = [{ title: "two" }, { title: "three" }];
const batch = await client.POST("/api/tasks:batch", { body: more });
assert.deepEqual(batch.data?.map((task) => task.title), ["two", "three"]);

const first = await client.GET("/api/tasks", { params: { query: { limit: 2 } } });
const next = /[?&]cursor=([^&>]+)/.exec(first.response.headers.get("Link")!)!;
const cursor = decodeURIComponent(next[1]!);
const second = await client.GET("/api/tasks", { params: { query: { limit: 2, cursor } } });
assert.equal(second.response.headers.get("Link"), null);
const titles = [...first.data!, ...second.data!].map((task) => task.title);
assert.deepEqual(titles.sort(), ["one", "three", "two"]);

const change = {
  params: { ...params, header: { "If-Match": etag } },
  body: { status: "done", description: null },
} as const;
const patched = await client.PATCH("/api/tasks/{id}", change);
assert.deepEqual(patched.data, {
  ...created.data,
  ...change.body,
  version: 2,
  updated_at: patched.data?.updated_at,
});

const late = await client.PATCH("/api/tasks/{id}", change);
assert.equal(late.response.status, 412);
assert(late.error && "title" in late.error);
assert.equal(late.error.title, "Precondition Failed");

const blank = await client.POST("/api/tasks", { body: { title: " " } });
assert.equal(blank.response.status, 422);
assert(blank.error && "errors" in blank.error);
const [error] = blank.error.errors ?? [];
assert.deepEqual([error?.pointer, error?.code], ["/title", "length"]);
assert.equal(blank.error.request_id, blank.response.headers.get("X-Request-Id"));

const deleted = await client.DELETE("/api/tasks/{id}", { params });
assert.equal(deleted.response.status, 204);
const gone = await client.GET("/api/tasks/{id}", { params });
assert.equal(gone.response.status, 404);
assert(gone.error && "title" in gone.error);
assert.equal(gone.error.title, "Not Found");
