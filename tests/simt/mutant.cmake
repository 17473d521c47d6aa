# Owns one mutant: runs `program` (its part `part`, if it is given) with SIMT_MUTANT=`mutant` and fails unless the
# program does.
execute_process(COMMAND ${CMAKE_COMMAND} -E env SIMT_MUTANT=${mutant} ${program} ${part} RESULT_VARIABLE result
                OUTPUT_VARIABLE output ERROR_VARIABLE output TIMEOUT 300)
if(result STREQUAL "0")
  message(FATAL_ERROR "mutant ${mutant} survives: ${program} finds nothing wrong with it")
endif()
string(REGEX MATCH "[^\n]*" first_line "${output}")
message("mutant ${mutant} is caught: ${first_line}")
