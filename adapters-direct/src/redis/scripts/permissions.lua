-- Which of these commands the user may not run, where the server tells (Redis 7). Without one of them a
-- script would end in its middle.
local missing = {}
for _, command in ipairs(ARGV) do
  if redis.acl_check_cmd and not redis.acl_check_cmd(command) then
    missing[#missing + 1] = command
  end
end
return missing
