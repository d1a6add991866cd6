select '{"status": "ok"}'::jsonb
