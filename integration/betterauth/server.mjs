// A web application that signs people in with Better Auth: the real one, on the database of a test, and nothing else.
//
//	DATABASE_URL  where its tables are, and are made
//	SETTINGS      JSON, all of it optional:
//	  ids         "text" (the default), "uuid" or "serial"
//	  columns     "camelCase" (the default) or "snake_case"
//	  tables      {"user": …, "session": …}: other names of tables
//	  schema      where the tables are, if not in "public"
//	  elsewhere   true keeps sessions in memory, as an application does that has Redis for them
//	  device      options of the plugin deviceAuthorization
//
// It prints the address that it serves at, a line, and ends when its standard input does.
import { webcrypto } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";

import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import { admin, bearer, deviceAuthorization } from "better-auth/plugins";
import pg from "pg";

globalThis.crypto ??= webcrypto; // the Node of Debian 12 lacks it

const { ids = "text", columns = "camelCase", tables = {}, schema = "public", elsewhere = false, device = {} } = JSON.parse(process.env.SETTINGS || "{}");

// named gives the columns of fields the names that were asked for.
function named(...fields) {
	if (columns === "camelCase") return {};
	return Object.fromEntries(fields.map((name) => [name, name.replace(/[A-Z]/g, (letter) => "_" + letter.toLowerCase())]));
}

const server = createServer();
server.listen(0, "127.0.0.1");
await once(server, "listening");
const baseURL = `http://127.0.0.1:${server.address().port}`;

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, options: `-c search_path=${schema}` });
// A test takes the database away while the server runs; the pool then loses its idle connections.
pool.on("error", () => {});
await pool.query(`create schema if not exists ${pg.escapeIdentifier(schema)}`);

const memory = new Map();
const auth = betterAuth({
	baseURL,
	secret: "for tests alone, and known to everybody",
	database: pool,
	secondaryStorage: !elsewhere ? undefined : {
		get: (key) => memory.get(key) ?? null,
		set: (key, value) => void memory.set(key, value),
		delete: (key) => void memory.delete(key),
	},
	emailAndPassword: { enabled: true },
	rateLimit: { enabled: false },
	telemetry: { enabled: false },
	advanced: { database: { generateId: ids === "text" ? undefined : ids } },
	user: {
		modelName: tables.user ?? "user",
		fields: named("emailVerified", "createdAt", "updatedAt"),
	},
	session: {
		modelName: tables.session ?? "session",
		fields: named("expiresAt", "createdAt", "updatedAt", "ipAddress", "userAgent", "userId"),
	},
	plugins: [
		bearer(),
		deviceAuthorization(device),
		admin({ schema: { user: { fields: named("banReason", "banExpires") }, session: { fields: named("impersonatedBy") } } }),
	],
});
await (await getMigrations(auth.options)).runMigrations();

server.on("request", toNodeHandler(auth));
console.log(baseURL);

process.stdin.resume();
await once(process.stdin, "end");
server.closeAllConnections();
server.close();
await pool.end();
