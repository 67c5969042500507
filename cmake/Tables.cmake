# infopt_table(NAME DIRS PREFIX RETURN_TYPE [EXCLUDE stems…] [EXTENSION cu]): a header <NAME>_table.h that declares PREFIX_<stem>() for every DIR/*.cpp (or .cu) of the list
# in sorted order and lists them in <NAME>_families(). Adding a file is all it takes; a missing function is a link error.
function(infopt_table name directories prefix return_type)
  cmake_parse_arguments(arg "" "HEADER;NAMESPACE;EXTENSION" "EXCLUDE" ${ARGN})
  if(NOT arg_EXTENSION)
    set(arg_EXTENSION cpp)
  endif()
  if(NOT arg_NAMESPACE)
    set(arg_NAMESPACE infopt)
  endif()
  set(files)
  foreach(directory ${directories})
    file(GLOB found CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${directory}/*.${arg_EXTENSION})
    list(APPEND files ${found})
  endforeach()
  set(stems)
  foreach(file ${files})
    get_filename_component(stem ${file} NAME_WE)
    if(NOT stem IN_LIST arg_EXCLUDE)
      list(APPEND stems ${stem})
    endif()
  endforeach()
  list(SORT stems)
  set(declarations "")
  set(entries "")
  foreach(stem ${stems})
    string(APPEND declarations "${return_type} ${prefix}_${stem}();\n")
    string(APPEND entries "      &${prefix}_${stem},\n")
  endforeach()
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/${name}_table.h @ONLY CONTENT "// Made by cmake/Tables.cmake.
#pragma once
#include <vector>
#include \"${arg_HEADER}\"

namespace ${arg_NAMESPACE} {
${declarations}
inline const std::vector<${return_type} (*)()>& ${name}_families() {
  static const std::vector<${return_type} (*)()> all{
${entries}  };
  return all;
}
}  // namespace ${arg_NAMESPACE}
")
endfunction()
