/**
 * The page as one document: nothing of it is loaded from elsewhere, so that it works in a closed
 * network, and the browser is told to take nothing else. Scripts and style stand in it whole, allowed
 * by their hashes; what the page shows it asks for itself.
 */

import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import uplotScript from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import uplotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };
import template from "./web/page.html" with { type: "text" };
import { script } from "./script.ts";
import style from "./web/style.css" with { type: "text" };

export interface Document {
  /** @param request decides by its headers whether it is packed, or known already. */
  answer(request: Request): Response;
}

export function createDocument(): Document {
  const html = fill(template, {
    style: `${uplotStyle}\n${style}`,
    uplot: uplotScript,
    script,
  });
  const plain = new TextEncoder().encode(html);
  const packed = gzipSync(plain, { level: 9 });
  const headers = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": policyOf(html),
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    etag: `"${sha256(html).slice(0, 22)}"`,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    vary: "accept-encoding",
  };

  return {
    answer({ headers: given }) {
      if (given.get("if-none-match")?.includes(headers.etag)) {
        return new Response(null, { status: 304, headers });
      }
      const gzip = /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))/.test(
        given.get("accept-encoding") ?? "",
      );
      return gzip
        ? new Response(packed, { headers: { ...headers, "content-encoding": "gzip" } })
        : new Response(plain, { headers });
    },
  };
}

/** Puts each text where its name stands in the template. */
function fill(html: string, texts: Readonly<Record<string, string>>): string {
  return html.replace(/\/\* (\w+) \*\//g, (mark, name) => texts[name] ?? mark);
}

/** `default-src 'none'`: what is not named here is forbidden. */
function policyOf(html: string): string {
  const hashes = (element: string) =>
    [...html.matchAll(new RegExp(`<${element}[^>]*>([^]*?)</${element}>`, "g"))]
      .map(([, text = ""]) => `'sha256-${sha256(text)}'`).join(" ");
  return [
    "default-src 'none'",
    `script-src ${hashes("script")}`,
    `style-src ${hashes("style")}`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join("; ");
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("base64");
}
