import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const server = process.env.RACKHAND_URL ?? "http://127.0.0.1:8420";

export default defineConfig({
  plugins: [react(), tailwindcss()],
  // No data: URLs, so that a strict Content-Security-Policy holds.
  build: { target: "es2023", cssTarget: ["chrome123", "firefox128", "safari17.5"], assetsInlineLimit: 0, sourcemap: false, modulePreload: { polyfill: false } },
  server: {
    host: "127.0.0.1",
    proxy: { "/v1": { target: server, changeOrigin: false }, "/errors": server, "/docs": server, "/openapi.json": server },
  },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
});
