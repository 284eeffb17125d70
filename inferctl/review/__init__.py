"""What a deployment would change, and how much care each change needs: `inferctl diff`."""
