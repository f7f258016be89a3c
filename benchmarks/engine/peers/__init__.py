"""The engines that are measured side by side, each behind the same few calls."""
