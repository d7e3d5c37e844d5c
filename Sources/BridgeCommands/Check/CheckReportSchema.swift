/// The JSON Schema of a check's report, as `bridge check --schema` prints it: the text of `schemas/check-report.schema.json`.
package enum CheckReportSchema {
    package static let text = #"""
        {
          "$schema": "https://json-schema.org/draft/2020-12/schema",
          "$id": "check-report.schema.json",
          "title": "The report of bridge check",
          "description": "What bridge check --json prints and data_dir/checks keeps. A minor version of the format only adds keys: pass over those that you do not know. Times are RFC 3339 in UTC, durations seconds, ratios from 0 to 1; positions, hashes and values of keys are strings. What is not known is null.",
          "type": "object",
          "required": ["format_version", "kind", "check_id", "migration", "mode", "background", "policies", "sample_seed", "verdict", "gate", "started_at", "completed_at", "source", "target", "fence_seconds", "foreign_writes", "soundness", "progress", "validations", "tables", "errors"],
          "properties": {
            "format_version": { "type": "string", "pattern": "^1\\.[0-9]+$" },
            "kind": { "const": "check" },
            "check_id": { "description": "Sorts by the time at which the check began.", "type": "string", "pattern": "^[0-9]{8}T[0-9]{6}Z-[0-9a-z]{4}$" },
            "migration": { "type": "string", "minLength": 1 },
            "mode": { "enum": ["full", "incremental", "sample", "fence"] },
            "background": { "description": "Whether a running link made it by itself.", "type": "boolean" },
            "policies": { "description": "The policies of equality in force, by name.", "type": "array", "items": { "type": "string", "pattern": "^[a-z_]+$" } },
            "sample_seed": { "description": "What the rows of the sample were drawn by: --sample-seed draws them again.", "type": ["string", "null"], "pattern": "^[0-9]+$" },
            "verdict": { "$ref": "#/$defs/verdict" },
            "gate": {
              "description": "Whether a phase change may rest on this check.",
              "type": "object",
              "required": ["open", "reasons"],
              "properties": {
                "open": { "type": "boolean" },
                "reasons": { "description": "Why it is shut; empty if it is open.", "$ref": "#/$defs/sentences" }
              },
              "if": { "properties": { "open": { "const": true } } },
              "then": { "properties": { "reasons": { "maxItems": 0 } } }
            },
            "started_at": { "$ref": "#/$defs/time" },
            "completed_at": { "anyOf": [{ "$ref": "#/$defs/time" }, { "type": "null" }] },
            "source": { "type": "string" },
            "target": { "type": "string" },
            "fence_seconds": { "description": "How long the check under a fence would take now.", "type": ["number", "null"], "minimum": 0 },
            "foreign_writes": { "description": "Writes to the target by others than bridge since the last full check began.", "type": ["integer", "null"], "minimum": 0 },
            "soundness": {
              "description": "What the verdict rests on, and whether it was found to hold.",
              "type": "array",
              "items": {
                "type": "object",
                "required": ["name", "holds", "detail"],
                "properties": {
                  "name": { "type": "string", "minLength": 1 },
                  "holds": { "type": "boolean" },
                  "detail": { "type": ["string", "null"] }
                }
              }
            },
            "progress": {
              "type": "object",
              "required": ["rows_done", "rows_estimated", "eta_seconds"],
              "properties": {
                "rows_done": { "$ref": "#/$defs/count" },
                "rows_estimated": { "anyOf": [{ "$ref": "#/$defs/count" }, { "type": "null" }] },
                "eta_seconds": { "type": ["number", "null"], "minimum": 0 }
              }
            },
            "validations": {
              "description": "The six, always all of them.",
              "type": "array",
              "minItems": 6,
              "items": {
                "type": "object",
                "required": ["name", "status", "findings"],
                "properties": {
                  "name": { "type": "string", "minLength": 1 },
                  "status": { "enum": ["passed", "failed", "inconclusive", "skipped"] },
                  "findings": { "description": "What fails first; behind it what begins with 'warning: ' or 'note: '.", "$ref": "#/$defs/sentences" }
                }
              },
              "allOf": [
                { "contains": { "properties": { "name": { "const": "row_counts" } } } },
                { "contains": { "properties": { "name": { "const": "schemas" } } } },
                { "contains": { "properties": { "name": { "const": "indexes" } } } },
                { "contains": { "properties": { "name": { "const": "constraints" } } } },
                { "contains": { "properties": { "name": { "const": "data_samples" } } } },
                { "contains": { "properties": { "name": { "const": "checksums" } } } }
              ]
            },
            "tables": {
              "type": "array",
              "items": {
                "type": "object",
                "required": ["source", "target", "status", "reason", "rows_compared", "matching", "mismatched", "source_only", "target_only", "pending", "repaired", "equal_by_policy", "hash_algorithm", "samples", "samples_cut"],
                "properties": {
                  "source": { "type": "string", "minLength": 1 },
                  "target": { "type": "string", "minLength": 1 },
                  "status": { "$ref": "#/$defs/verdict" },
                  "reason": { "type": ["string", "null"] },
                  "rows_compared": { "$ref": "#/$defs/count" },
                  "matching": { "$ref": "#/$defs/count" },
                  "mismatched": { "$ref": "#/$defs/count" },
                  "source_only": { "$ref": "#/$defs/count" },
                  "target_only": { "$ref": "#/$defs/count" },
                  "pending": { "description": "Rows that changed meanwhile and are not settled yet.", "$ref": "#/$defs/count" },
                  "repaired": { "description": "Rows of the target that this check wrote over with the source's.", "$ref": "#/$defs/count" },
                  "equal_by_policy": { "description": "Rows that this check compared and found equal only under a policy, by its name.", "type": "object", "additionalProperties": { "$ref": "#/$defs/count" } },
                  "hash_algorithm": { "type": ["string", "null"] },
                  "samples": { "type": "array", "items": { "$ref": "#/$defs/sample" } },
                  "samples_cut": { "description": "Whether more rows differ than samples has.", "type": "boolean" },
                  "source_schema": { "description": "What the table was defined as on the source when the check began: equal hashes, equal definitions. Reports of older versions lack it.", "type": ["string", "null"], "pattern": "^[0-9a-f]+$" },
                  "target_schema": { "description": "The same on the target.", "type": ["string", "null"], "pattern": "^[0-9a-f]+$" }
                }
              }
            },
            "errors": {
              "type": "array",
              "items": {
                "type": "object",
                "required": ["code", "message", "hint"],
                "properties": {
                  "code": { "type": "string", "pattern": "^[a-z_]+$" },
                  "message": { "type": "string", "minLength": 1 },
                  "hint": { "type": "string", "minLength": 1 }
                }
              }
            }
          },
          "$defs": {
            "verdict": { "enum": ["consistent", "inconsistent", "inconclusive", "error"] },
            "time": { "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?Z$" },
            "count": { "type": "integer", "minimum": 0 },
            "sentences": { "type": "array", "items": { "type": "string", "minLength": 1 } },
            "values": { "description": "Column and value, as text.", "type": "object", "additionalProperties": { "type": ["string", "null"] } },
            "sample": {
              "description": "One row that differs. Values are there only with --show-values.",
              "type": "object",
              "required": ["kind", "key", "columns", "position", "source_hash", "target_hash"],
              "properties": {
                "kind": { "description": "missing: on the source only; extra: on the target only.", "enum": ["missing", "extra", "different"] },
                "key": { "$ref": "#/$defs/values" },
                "columns": { "type": "array", "items": { "type": "string" } },
                "position": { "type": ["string", "null"] },
                "source_hash": { "type": ["string", "null"] },
                "target_hash": { "type": ["string", "null"] },
                "source_values": { "$ref": "#/$defs/values" },
                "target_values": { "$ref": "#/$defs/values" }
              }
            }
          }
        }
        """#
}
