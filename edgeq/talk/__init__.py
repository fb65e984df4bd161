"""What models say in a chat: thinking, tool calls and the answer told apart, and conversations with tools rendered."""
