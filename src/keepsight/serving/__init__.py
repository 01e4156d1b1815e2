"""Traffic: answers pictures over HTTP, logs every answer before it leaves, and swaps models while requests run."""
